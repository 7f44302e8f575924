// Which shell a makefile asks for: pmake's own stands in its place, so make does not say.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace pmake {

std::string shell_in_makefile(const std::string& path);
// The last SHELL = ... in it, or in what it includes, that names a shell of this machine, with its options: words with one
// blank between them. "/bin/sh" when there is none.

std::string shell_for_make(pid_t make);
// The same for the makefile that this running make reads.

std::vector<std::string> makefiles_of(const std::vector<std::string>& command, const std::string& folder);
// By the options -f, or the first of the usual names that is there.

} // namespace pmake
