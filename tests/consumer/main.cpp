#include <migrate/migrate.hpp>

#if defined(MIGRATE_COMPILED_NODE) &&                                                                                     \
    (defined(KJ_ALWAYS_INLINE) || defined(CAPNP_VERSION_MAJOR) || defined(UV_VERSION_MAJOR))
#error "with a node that is compiled elsewhere, no header must bring in Cap'n Proto, kj or libuv"
#endif

#include <cstdio>
#include <string>

#include <capnp/message.h>
#include <kj/compat/tls.h>
#include <migrate/rpc/protocol.capnp.h>
#include <uv.h>
#include <xxhash.h>

std::string name_of(migrate::task_id id);

int main(int argc, char** argv) {
  // Something of each library that the package links, so that a missing one is noticed.
  capnp::MallocMessageBuilder message;
  message.initRoot<migrate::protocol::Message>();
  kj::TlsContext tls;
  if (uv_version() == 0 || XXH3_64bits("migrate", 7) == 0) return 1;

  return migrate::run(argc, argv, [] { std::puts(name_of(migrate::task_id(migrate::node_id{3}, 42, 0)).c_str()); });
}
