// How many processors this process may use.
#pragma once

namespace pmake {

unsigned processors();
// By its affinity, and by the quota of its control group where there is one; at least 1.

} // namespace pmake
