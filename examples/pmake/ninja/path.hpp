// Names of files: their one canonical form, and how a shell wants them quoted.
#pragma once

#include <string>
#include <string_view>

namespace pmake {

bool is_canonical(std::string_view path) noexcept;
// True only when canonicalize() would change nothing; false costs no more than calling it.

void canonicalize(std::string& path);
// Drops "./", "//" and a trailing "/", and "x/.." where x is a name; looks at no file. "" stays "".

void append_shell_quoted(std::string& to, std::string_view path);
// As it is when it has nothing that a shell interprets, else in single quotes.

std::string folder_of(std::string_view path);
// Without the last component; "" when there is only one.

} // namespace pmake
