#include <migrate/task.hpp>

#include <cstdio>
#include <string>

#include <capnp/message.h>
#include <migrate/rpc/protocol.capnp.h>

int main() {
  capnp::MallocMessageBuilder message;
  message.initRoot<migrate::protocol::Message>();
  std::puts(("task " + migrate::to_string(migrate::task_id(migrate::node_id{3}, 42, 0))).c_str());
}
