@0xb8d5c7a1e26f4093;
# What agents, the host database, applications and commands say to each other, over channels (channel.hpp). Times are
# ages or durations in milliseconds: no clock of another machine is ever compared with one's own.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("migrate::protocol");

enum HostRole {
  agent @0;
  # Says whether its machine may be lent, and launches nodes there.
  database @1;
  application @2;
  # A cluster: its first node speaks for it.
  command @3;
  # Of a person: it looks, and says busy, free and move.
  node @4;
}

struct HostHello {
  # The first message in each direction.
  version @0 :UInt32;
  role @1 :HostRole;
  name @2 :Text;
  # Of the program or application.
  user @3 :UInt32;
  userName @4 :Text;
  host @5 :Text;
  process @6 :UInt32;
}

struct HostFailure {
  code @0 :Int32;
  # A value of migrate::errc, or errno.
  system @1 :Bool;
  text @2 :Text;
}

struct HostMessage {
  call @0 :UInt64;
  # A request's number, which its answer gives back; zero: no answer is wanted.
  answer @1 :Bool;
  # This is the answer to the request of that number.

  union {
    hello @2 :HostHello;
    done @3 :Void;
    # The answer to a request that only wants to be known done.
    failed @4 :HostFailure;
    # An answer.
    test @5 :Data;

    # Agent to database.
    register @6 :HostRegistration;
    state @7 :HostState;
    grantEnded @8 :GrantNumber;
    # Nothing of it is left on the agent's machine.

    # Database to agent.
    reserved @9 :Reservation;
    ended @10 :GrantReason;
    # The agent ends what runs for the grant, and says grantEnded. It also says it to the application that launched
    # something, when nothing of it is left.

    # Application to database.
    ask @11 :HostAsk;
    giveBack @12 :GiveBack;

    # Database to application.
    granted @13 :HostGrant;
    revoked @14 :GrantReason;
    # Also from an agent to the database: it takes the grant back, and says grantEnded when nothing is left.

    # Application to agent. The grant is over when this channel closes. It may come before the reservation, which takes
    # another way.
    launch @15 :Launch;
    launched @16 :Launched;

    # Agent to node and back.
    evict @17 :Eviction;
    evicted @18 :Void;

    # Command to any.
    statusOf @19 :Void;
    status @20 :HostStatus;
    busy @21 :Void;
    free @22 :Void;
    moveTask @23 :TaskMove;

    # A node to those that it has started on its machine.
    stop @24 :Void;
    # The cluster ends. Those that are lost to it, since they were silent for too long, hear of it in no other way.
  }
}

struct GrantNumber {
  grant @0 :UInt64;
}

struct GiveBack {
  grant @0 :UInt64;
  unusable @1 :Text;
  # Why the application could not use the host; empty: it could.
  fewer @2 :UInt32;
  # It wants so many fewer from now on.
}

struct GrantReason {
  grant @0 :UInt64;
  reason @1 :Text;
  milliseconds @2 :UInt32;
  # Until it is taken.
}

struct HeldGrant {
  # What an agent or an application says that it holds, to a database that may know nothing of it.
  grant @0 :UInt64;
  application @1 :UInt64;
  secret @2 :Data;
  host @3 :Text;
  agentAddress @4 :Text;
}

struct HostRegistration {
  address @0 :Text;
  # Where the agent listens for launches.
  host @1 :Text;
  slots @2 :UInt32;
  # Grants that it may serve at once: its processors, unless its owner says fewer.
  grants @3 :List(HeldGrant);
}

struct HostState {
  lendable @0 :Bool;
  reason @1 :Text;
  # Why, or why not.
  source @2 :Text;
  # The one that decided how long the machine has been idle.
  idleMilliseconds @3 :UInt64;
  loadOwn @4 :Float64;
  # Run queue of the machine's owner.
  loadForeign @5 :Float64;
  # Run queue of what the agent has launched.
  pressure @6 :Float64;
}

struct Reservation {
  grant @0 :UInt64;
  application @1 :UInt64;
  applicationName @2 :Text;
  user @3 :UInt32;
  userName @4 :Text;
  secret @5 :Data;
  longRunning @6 :Bool;
  # Short tasks may share its slot.
}

struct HostAsk {
  application @0 :UInt64;
  # Drawn at random by the application; the same as long as it lives.
  wanted @1 :UInt32;
  # In all, with what it holds.
  least @2 :UInt32;
  # It takes nothing before it can have so many.
  priority @3 :Int32;
  # Higher ones are served first.
  longRunning @4 :Bool;
  # It lets short tasks in.
  held @5 :List(HeldGrant);
  back @6 :Bool;
  # It has connected again, and `held` is all that it has.
}

struct HostGrant {
  grant @0 :UInt64;
  host @1 :Text;
  agentAddress @2 :Text;
  secret @3 :Data;
  processors @4 :UInt32;
}

struct Launch {
  grant @0 :UInt64;
  secret @1 :Data;
  executable @2 :Data;
  # Its content address as text, such as publish_executable (cluster/executable.hpp) gives for this program itself.
  path @3 :Text;
  # Where it may be found.
  store @4 :Text;
  # Where it is fetched from when it is not there.
  arguments @5 :List(Text);
  # The program's name first.
  environment @6 :List(Text);
  # NAME=VALUE each.
  directory @7 :Text;
  memoryBytes @8 :UInt64;
  # Zero: the agent's own limit.
  processes @9 :UInt32;
  # Zero: the agent's own limit.
}

struct Launched {
  process @0 :UInt32;
}

struct Eviction {
  milliseconds @0 :UInt32;
  reason @1 :Text;
}

struct TaskMove {
  task @0 :UInt64;
  node @1 :UInt16;
}

struct HostStatus {
  # Whatever of it the asked program knows.
  hosts @0 :List(HostLine);
  applications @1 :List(ApplicationLine);
  tasks @2 :List(TaskLine);
  events @3 :List(EventLine);
  nodes @4 :List(NodeLine);
}

struct HostLine {
  host @0 :Text;
  agentAddress @1 :Text;
  state @2 :HostState;
  slots @3 :UInt32;
  holders @4 :List(HolderLine);
  age @5 :UInt64;
  # Milliseconds since the state was told.
}

struct HolderLine {
  grant @0 :UInt64;
  application @1 :UInt64;
  applicationName @2 :Text;
  userName @3 :Text;
}

struct ApplicationLine {
  application @0 :UInt64;
  name @1 :Text;
  userName @2 :Text;
  host @3 :Text;
  wanted @4 :UInt32;
  least @5 :UInt32;
  held @6 :UInt32;
  priority @7 :Int32;
  longRunning @8 :Bool;
}

struct TaskLine {
  task @0 :UInt64;
  name @1 :Text;
  home @2 :UInt16;
  place @3 :UInt16;
  state @4 :Text;
  moves @5 :UInt64;
  bytes @6 :UInt64;
}

struct NodeLine {
  node @0 :UInt16;
  host @1 :Text;
  process @2 :UInt32;
  address @3 :Text;
  workers @4 :UInt32;
  tasks @5 :UInt64;
  # That are on it; not all of them need be listed.
  state @6 :Text;
  # Empty: it answers and takes tasks.
}

struct EventLine {
  age @0 :UInt64;
  # Milliseconds since it happened.
  what @1 :Text;
  reason @2 :Text;
}
