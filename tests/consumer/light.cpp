#include <migrate/task.hpp>

#include <string>

#if defined(KJ_ALWAYS_INLINE) || defined(CAPNP_VERSION_MAJOR) || defined(UV_VERSION_MAJOR)
#error "migrate/task.hpp must not bring in Cap'n Proto, kj or libuv"
#endif

std::string name_of(migrate::task_id id);

std::string name_of(migrate::task_id id) { return "task " + migrate::to_string(id); }
