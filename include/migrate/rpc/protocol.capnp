@0xf3062755638cc099;
# What nodes say to each other. Every message is one way: a sender that wants an answer puts a number
# into its message and finds it again in the answer's. Frames (see frame.hpp) carry the messages, with
# raw bytes such as pages attached beside them. Pings and closing are the frames' own affair.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("migrate::protocol");

struct Id128 {
  high @0 :UInt64;
  low @1 :UInt64;
}

struct Object {
  # An executable or library as it is loaded in a process.
  name @0 :Text;
  address @1 :UInt64;
  build @2 :Data;
}

struct RegionClass {
  first @0 :UInt64;
  sizeBits @1 :UInt32;
  regions @2 :UInt32;
  grant @3 :UInt32;
}

struct Identity {
  # What two nodes must have in common before a task can move between them.
  protocolVersion @0 :UInt32;
  cluster @1 :Id128;
  # Zero: not known yet, as in a node that asks to join.
  store @2 :Id128;
  pageSize @3 :UInt64;
  planBase @4 :UInt64;
  planSize @5 :UInt64;
  classes @6 :List(RegionClass);
  objects @7 :List(Object);
  # The executable first, then its libraries in the order of loading.
  architecture @8 :Text;
  cpuCompiled @9 :List(Text);
  # Features that the compiler was told it may use.
  cpuActive @10 :List(Text);
  # Features that the processor offers, as the C library sees them.
  user @11 :UInt32;
  groups @12 :List(UInt32);
  # Effective ones: the main group first, then the others, ascending.
}

struct Hello {
  # The first message in each direction.
  node @0 :UInt16;
  # Zero asks to join.
  incarnation @1 :UInt64;
  # Drawn at random when a process starts.
  address @2 :Text;
  # Where this node listens.
  identity @3 :Identity;
  expectedNode @4 :UInt16;
  # The node that the caller believes it called; zero is any.
}

struct Refusal {
  code @0 :UInt32;
  # A value of migrate::errc.
  text @1 :Text;
}

struct Message {
  union {
    hello @0 :Hello;
    refused @1 :Refusal;
    test @2 :Data;
    # Ignored by nodes; tests and benchmarks carry bytes in it.

    answer @3 :Answer;

    # Cluster.
    welcome @4 :Welcome;
    members @5 :List(Member);
    grant @6 :GrantRequest;
    stop @7 :Void;
    # The cluster's first node ends it: finish and exit.
    statistics @8 :Call;

    # Home.
    child @9 :Child;
    join @10 :Join;
    release @11 :UInt64;
    # Task: its outcome is not wanted any more.
    locate @12 :TaskCall;
    ended @13 :Ended;
    # Attachment: the outcome's bytes.
    endedSeen @14 :UInt64;
    # Task: home has recorded its end.
    claim @15 :Claim;

    # Transfer.
    move @16 :Move;
    offer @17 :Offer;
    # Attachment: the carriers' bundle, then the pages.
    refusal @18 :OfferRefusal;
    taken @19 :TaskEpoch;
    # From the target to the source: the task runs here now.
    stillHeld @20 :TaskEpoch;
    # From home to the source of a move whose target has died: was it ever taken?
    notHeld @21 :TaskEpoch;

    # Mail.
    mail @22 :Mail;
    # Attachment: the value's bytes.
    mailSeen @23 :MailSeen;
    mailAgain @24 :MailRoute;
    # The receiver can take mail of this sender again.

    enter @25 :Void;
    # From a process without a number: it wants to be a node of the cluster.

    disown @26 :TaskEpoch;
    # From home to a node that was believed lost: home has told the task's waiters that it is lost, so it must not go
    # on there. `notHeld` answers when it is gone.

    running @27 :TaskEpoch;
    # To a home that is there again: the task went on here, at that epoch, when home could not be asked.

    request @28 :Request;
    # Of a home's service, on behalf of a task. Attachment: what is asked, in the service's own form.

    signal @29 :Signal;
    # From home to where the task is. Attachment: a signal_info.
    signalSeen @30 :SignalSeen;

    # Placement (see cluster/placement_office.hpp).
    loads @32 :LoadNews;
    roomAsked @33 :RoomRequest;
    # May that task come? Answered by `room`.
    room @34 :Room;

    host @31 :AnyPointer;
    # On a channel (rpc/channel.hpp), where nothing else is said: a HostMessage of hosts.capnp, which only those include
    # who speak it.

    forGrant @35 :UInt64;
    # From a node that an agent has started, to the first one: the grant that it runs for.

    # Pages that go ahead of their task's offer (see transfer/ahead.hpp).
    receive @36 :Receive;
    pages @37 :PagesAhead;
    # Attachment: the pages.
    lay @38 :ImageAhead;
    ready @39 :TaskEpoch;
    # From the target: what came before this `receive`, `lay` or last part of `pages` lies where it belongs.
    dropAhead @40 :TaskEpoch;
    # There will be no offer.
    # Checkpoints (see transfer/checkpoint.hpp).
    checkpointed @41 :Checkpoint;
    # To the task's home: that generation is committed.
    checkpointSeen @42 :Checkpoint;
    # From home.

    reference @43 :Reference;
    # Between page offices (transfer/page_office.hpp), where nothing else is said. Attachment: the pages.
  }
}

struct Reference {
  # Of the memory of a task that has moved and left it behind.
  task @0 :UInt64;
  number @1 :UInt64;
  # Of the move, as the node that has the memory counts them.
  union {
    # To where the memory is:
    greeting @2 :Void;
    # Answered by `greeting`.
    fetch @3 :UInt64;
    # The address of a page, which goes before all others.
    push @4 :Void;
    # All else is to be sent, from the beginning.
    seen @5 :UInt32;
    # Bytes that were pushed and lie where they belong.
    done @6 :Void;
    # Nothing more is wanted.

    # To where the task is:
    pages @7 :List(Pages);
    nothing @8 :UInt64;
    # That page has zeros.
    rest @9 :UInt64;
    # Bytes that will be pushed.
    all @10 :Void;
    # What did not come has zeros.
    unknown @11 :Void;
    # There is no such memory.
  }
  compressed @12 :Bool;
  # What is attached to `pages` is one LZ4 block of all of them.
}

struct Call {
  call @0 :UInt64;
}

struct TaskCall {
  call @0 :UInt64;
  task @1 :UInt64;
}

struct Request {
  call @0 :UInt64;
  task @1 :UInt64;
  service @2 :UInt16;
}

struct Answer {
  # To whatever request had this number.
  call @0 :UInt64;
  code @1 :Int32;
  # Zero, or a value of migrate::errc.
  what @2 :Text;
  first @3 :UInt64;
  second @4 :UInt64;
  # Attachment: what the request asks for.
}

struct Range {
  kind @0 :UInt8;
  first @1 :UInt32;
  count @2 :UInt32;
}

struct Member {
  node @0 :UInt16;
  address @1 :Text;
  left @2 :Bool;
}

struct Welcome {
  node @0 :UInt16;
  cluster @1 :Id128;
  members @2 :List(Member);
  ranges @3 :List(Range);
}

struct GrantRequest {
  call @0 :UInt64;
  kind @1 :UInt8;
}

struct Child {
  call @0 :UInt64;
  parent @1 :UInt64;
  kind @2 :UInt8;
  awaitedAs @3 :UInt64;
  # The parent's number for a child whose end it will ask for by wait; zero: for any other.
}

struct Join {
  call @0 :UInt64;
  task @1 :UInt64;
  take @2 :Bool;
  # False: only wait for the end.
}

struct Ended {
  task @0 :UInt64;
  epoch @1 :UInt64;
  kind @2 :UInt8;
  status @3 :Int32;
  # In the form of wait(2).
  usage @4 :Data;
  # A task_usage.
}

struct Claim {
  call @0 :UInt64;
  task @1 :UInt64;
  epoch @2 :UInt64;
  # The one to be followed by epoch + 1.
  source @3 :UInt16;
}

struct Move {
  call @0 :UInt64;
  task @1 :UInt64;
  target @2 :UInt16;
  by @3 :UInt64;
  # The task that asks for it; 0: none, but the node that does.
  reason @4 :UInt8;
  # A move_reason.
  transfer @5 :UInt8;
}

struct Receive {
  task @0 :UInt64;
  epoch @1 :UInt64;
  region @2 :UInt32;
}

struct PagesAhead {
  task @0 :UInt64;
  epoch @1 :UInt64;
  pages @2 :List(Pages);
  last @3 :Bool;
  # Of a round, or of those by which the link is measured: to be answered by `ready`.
  compressed @4 :Bool;
  # What is attached is one LZ4 block of all of them.
}

struct ImageAhead {
  task @0 :UInt64;
  epoch @1 :UInt64;
  manifest @2 :Data;
}

struct Pages {
  address @0 :UInt64;
  count @1 :UInt32;
}

struct Offer {
  task @0 :UInt64;
  epoch @1 :UInt64;
  region @2 :UInt32;
  control @3 :UInt64;
  # Address of the control block.
  clock @4 :Int64;
  # The task's clock when it was frozen, nanoseconds.
  boot @5 :Id128;
  # The machine whose steady clock it is.
  manifest @6 :Data;
  # The image to resume from; empty: none.
  pages @7 :List(Pages);
  # What is newer than the image, and follows the bundle.
  bundle @8 :UInt32;
  # Length of the carriers' bundle in bytes.
  original @9 :UInt64;
  # The task that this one is a copy of, by fork(); zero: none.
  shared @10 :Bool;
  # Other tasks may have the same region, each on a node of its own.
  ahead @11 :Bool;
  # Pages have come ahead, and are older than those that follow.
  unlaid @12 :Bool;
  # The image is not what the memory is based on, but what the store has of the task.
  restarted @13 :Bool;
  # By its home, from a checkpoint: the node that it was on has died.
  officePort @14 :UInt16;
  # Of the source's page office, which keeps the rest of the memory; zero: all has come.
  missingFrom @15 :UInt64;
  missingTo @16 :UInt64;
  # Where that rest lies, but for the pages that came.
  officeNumber @17 :UInt64;
  compressed @18 :Bool;
  # What follows the bundle is one LZ4 block of all pages.
}

struct OfferRefusal {
  task @0 :UInt64;
  epoch @1 :UInt64;
  code @2 :Int32;
  what @3 :Text;
}

struct TaskEpoch {
  task @0 :UInt64;
  epoch @1 :UInt64;
}

struct Checkpoint {
  task @0 :UInt64;
  epoch @1 :UInt64;
  generation @2 :UInt64;
  # 0: home is not to restart the task.
  accepted @3 :Bool;
  # By home: the task is where it was.
}

struct Load {
  node @0 :UInt16;
  workers @1 :UInt32;
  speed @2 :Float32;
  # Processor seconds that a worker gets in a second.
  busy @3 :Float32;
  runnable @4 :Float32;
  accepts @5 :Bool;
  age @6 :UInt32;
  # Milliseconds since the node measured it.
}

struct LoadNews {
  loads @0 :List(Load);
  # The sender's own first.
}

struct RoomRequest {
  number @0 :UInt64;
  task @1 :UInt64;
  from @2 :Load;
  used @3 :Float64;
  # Processor seconds so far.
  rate @4 :Float64;
  runnable @5 :Float64;
  bytes @6 :UInt64;
  messagesHere @7 :Float64;
  # Each second, with tasks on the sender's node; and with tasks on the receiver's.
  messagesThere @8 :Float64;
  cost @9 :Float64;
  # Seconds that the move is expected to take.
}

struct Room {
  number @0 :UInt64;
  granted @1 :Bool;
  load @2 :Load;
  # The sender's, the task included if it is granted.
}

struct MailRoute {
  from @0 :UInt64;
  to @1 :UInt64;
}

struct Mail {
  from @0 :UInt64;
  to @1 :UInt64;
  sequence @2 :UInt64;
  key @3 :UInt64;
  oldest @4 :UInt64;
  # The sequence of the oldest that is not confirmed: what is before it will not be sent again.
}

struct Signal {
  task @0 :UInt64;
  number @1 :UInt64;
  # Home counts a task's signals from 1.
}

struct SignalSeen {
  task @0 :UInt64;
  number @1 :UInt64;
  # All up to this one are the task's.
  here @2 :Bool;
  # False: the task is not here.
}

enum MailStatus {
  accepted @0;
  notHere @1;
  held @2;
  # The receiver is being moved: mailAgain follows.
  full @3;
  # mailAgain follows.
  outOfOrder @4;
  # `sequence` is the one expected.
}

struct MailSeen {
  from @0 :UInt64;
  to @1 :UInt64;
  sequence @2 :UInt64;
  status @3 :MailStatus;
  place @4 :UInt16;
  # With notHere, from the receiver's home: where it is; zero: it has ended.
}
