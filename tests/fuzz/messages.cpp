// What nodes, agents and host databases read from their connections: frames, and every field of every message in them.
#include "fuzz.hpp"

#include <migrate/rpc/frame.hpp>
#include <migrate/rpc/hosts.capnp.h>
#include <migrate/rpc/identity.hpp>
#include <migrate/rpc/message_frame.hpp>
#include <migrate/store/image.hpp>
#include <migrate/transfer/compressor.hpp>
#include <migrate/transfer/offer_reader.hpp>
#include <migrate/transfer/reference_reader.hpp>
#include <migrate/transfer/pages_reader.hpp>

#include <capnp/pretty-print.h>
#include <kj/string-tree.h>

using namespace migrate;

namespace {

constexpr std::size_t most_words = 1 << 12, most_attached = 1 << 14;

const detail::region_number region(region_class::small, 3);

const identity& own_identity() {
  static const identity mine = identity::of_this_process({1, 2});
  return mine;
}

void take(protocol::Message::Reader message, kj::ArrayPtr<const kj::byte> attachment) {
  static_cast<void>(message.toString().flatten()); // visits everything
  switch (message.which()) {
  case protocol::Message::HELLO:
    static_cast<void>(first_difference(own_identity(), identity::read(message.getHello().getIdentity())));
    return;
  case protocol::Message::OFFER: {
    auto offered = detail::read_offer(node_id(7), message.getOffer(), attachment);
    detail::check_offer(*offered);
    std::size_t sum = 0;
    detail::for_each_range(*offered, [&](const page_range& range, const std::byte* bytes) {
      for (std::size_t i = 0; i < range.bytes; i += 512) sum += static_cast<std::size_t>(bytes[i]);
      if (!offered->region.valid() || range.address <= offered->region.base()) std::abort();
    });
    volatile std::size_t seen = sum;
    static_cast<void>(seen);
    if (!offered->manifest.empty()) static_cast<void>(image::parse(offered->manifest));
    return;
  }
  case protocol::Message::RECEIVE: {
    auto asked = detail::region_number::from_bits(message.getReceive().getRegion());
    if (asked.valid() && detail::region_number::from_bits(asked.bits()) != asked) std::abort();
    return;
  }
  case protocol::Message::PAGES: {
    std::size_t sum = 0;
    detail::page_decompressor decompress;
    bool good = detail::for_each_range_ahead(
        region, message.getPages(), attachment, decompress, [&](char* to, const kj::byte* from, std::size_t bytes) {
          for (std::size_t i = 0; i < bytes; i += 512) sum += from[i];
          if (to <= region.base() || to + bytes > region.base() + region.size()) std::abort();
        });
    volatile std::size_t seen = sum;
    static_cast<void>(seen);
    if (!good) throw error(errc::protocol, "pages outside their region");
    return;
  }
  case protocol::Message::LAY: {
    auto bytes = message.getLay().getManifest();
    image laid = image::parse(std::as_bytes(std::span(bytes.begin(), bytes.size())));
    if (!laid.valid() || image::parse(laid.encode()) != laid) std::abort();
    return;
  }
  case protocol::Message::REFERENCE: {
    auto about = message.getReference();
    if (about.which() != protocol::Reference::PAGES) return;
    const char *from = region.base() + detail::page_size, *to = region.base() + region.size();
    std::size_t sum = 0;
    detail::page_decompressor decompress;
    detail::for_each_page_run(about, attachment, from, to, decompress, [&](char* page, const kj::byte* bytes, std::size_t size) {
      for (std::size_t i = 0; i < size; i += 512) sum += bytes[i];
      if (page < from || page + size > to) std::abort();
    });
    volatile std::size_t seen = sum;
    static_cast<void>(seen);
    return;
  }
  case protocol::Message::HOST:
    static_cast<void>(message.getHost().getAs<protocol::HostMessage>().toString().flatten());
    return;
  default: return;
  }
}

bool read_stream(std::span<const std::uint8_t> bytes) {
  // As a connection does, with the bytes where it has them: in words of eight.
  std::vector<std::uint64_t> buffer((bytes.size() + 7) / 8);
  if (bytes.empty()) return true;
  std::memcpy(buffer.data(), bytes.data(), bytes.size());
  const auto* at = reinterpret_cast<const std::byte*>(buffer.data());
  for (std::size_t left = bytes.size(); left > 0;) {
    detail::frame_header header;
    if (left < sizeof header) return false;
    std::memcpy(&header, at, sizeof header);
    if (!detail::what_is_wrong(header, most_words, most_attached).empty()) return false;
    std::size_t whole = detail::frame_bytes(header);
    if (left < whole) return false;
    if (header.kind == static_cast<std::uint16_t>(detail::frame_kind::message))
      detail::read_frame(header, at + sizeof header, take);
    at += whole;
    left -= whole;
  }
  return true;
}

using attached_bytes = std::vector<std::uint8_t>;

attached_bytes compressed(std::size_t bundle, std::size_t pages) {
  // The bundle, and pages of some text as one block.
  std::vector<std::uint8_t> text(pages * detail::page_size);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::uint8_t>(i / 64);
  iovec part{text.data(), text.size()};
  detail::compressor compress(compression::always);
  std::span<const std::byte> block = compress.compress({&part, 1});
  attached_bytes all(bundle, 0x5a);
  for (std::byte each : block) all.push_back(static_cast<std::uint8_t>(each));
  return all;
}

template <class Fill> void add_frame(migrate_fuzz::input& to, const attached_bytes& attached, Fill&& fill) {
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<protocol::Message>());
  kj::Array<capnp::word> words = capnp::messageToFlatArray(message);
  detail::frame_header header{
      detail::frame_magic, 1, 0, static_cast<std::uint32_t>(words.size()), 0, attached.size()};
  migrate_fuzz::append(to, &header, sizeof header);
  migrate_fuzz::append(to, words.asBytes().begin(), words.asBytes().size());
  migrate_fuzz::append(to, attached.data(), attached.size());
  to.resize(to.size() + detail::padded(attached.size()) - attached.size());
}
template <class Fill> void add_frame(migrate_fuzz::input& to, std::size_t attached, Fill&& fill) {
  add_frame(to, attached_bytes(attached, 0x5a), fill);
}

} // namespace

std::vector<migrate_fuzz::input> migrate_fuzz::seeds() {
  std::vector<input> all;
  auto one = [&](const auto& attached, auto&& fill) { add_frame(all.emplace_back(), attached, fill); };
  one(0, [](protocol::Message::Builder out) {
    auto hello = out.initHello();
    hello.setNode(3);
    hello.setIncarnation(99);
    hello.setAddress("127.0.0.1:7000");
    own_identity().write(hello.initIdentity());
  });
  one(16 + detail::page_size, [](protocol::Message::Builder out) {
    auto offer = out.initOffer();
    offer.setTask(task_id(node_id(1), 5, 0).bits());
    offer.setEpoch(4);
    offer.setRegion(region.bits());
    offer.setControl(region.address() + 8 * detail::page_size);
    offer.setBundle(16);
    auto pages = offer.initPages(1);
    pages[0].setAddress(region.address() + 2 * detail::page_size);
    pages[0].setCount(1);
  });
  one(3 * detail::page_size, [](protocol::Message::Builder out) {
    auto about = out.initReference();
    about.setTask(task_id(node_id(1), 5, 0).bits());
    about.setNumber(2);
    auto pages = about.initPages(2);
    pages[0].setAddress(region.address() + 4 * detail::page_size);
    pages[0].setCount(1);
    pages[1].setAddress(region.address() + 8 * detail::page_size);
    pages[1].setCount(2);
  });
  one(compressed(16, 2), [](protocol::Message::Builder out) {
    auto offer = out.initOffer();
    offer.setTask(task_id(node_id(1), 5, 0).bits());
    offer.setRegion(region.bits());
    offer.setControl(region.address() + 8 * detail::page_size);
    offer.setBundle(16);
    offer.setCompressed(true);
    auto pages = offer.initPages(1);
    pages[0].setAddress(region.address() + 2 * detail::page_size);
    pages[0].setCount(2);
  });
  one(compressed(0, 3), [](protocol::Message::Builder out) {
    auto about = out.initReference();
    about.setNumber(2);
    about.setCompressed(true);
    auto pages = about.initPages(2);
    pages[0].setAddress(region.address() + 4 * detail::page_size);
    pages[0].setCount(1);
    pages[1].setAddress(region.address() + 8 * detail::page_size);
    pages[1].setCount(2);
  });
  one(compressed(0, 5), [](protocol::Message::Builder out) {
    auto ahead = out.initPages();
    ahead.setCompressed(true);
    auto pages = ahead.initPages(1);
    pages[0].setAddress(region.address() + 2 * detail::page_size);
    pages[0].setCount(5);
  });
  one(0, [](protocol::Message::Builder out) { out.initReference().setFetch(0x1100'0000'2000); });
  one(24, [](protocol::Message::Builder out) {
    auto answer = out.initAnswer();
    answer.setCall(6);
    answer.setWhat("nothing");
  });
  one(0, [](protocol::Message::Builder out) {
    auto welcome = out.initWelcome();
    welcome.initMembers(2)[1].setAddress("127.0.0.1:1");
    welcome.initRanges(4);
  });
  one(8, [](protocol::Message::Builder out) { out.initMail().setSequence(8); });
  one(48, [](protocol::Message::Builder out) { out.initSignal().setNumber(1); });
  one(9, [](protocol::Message::Builder out) { out.initRequest().setService(2); });
  one(0, [](protocol::Message::Builder out) { out.initLoads().initLoads(3)[0].setSpeed(1); });
  one(0, [](protocol::Message::Builder out) { out.initMove().setTarget(2); });
  one(0, [](protocol::Message::Builder out) { out.initRefusal().setWhat("no"); });
  one(0, [](protocol::Message::Builder out) { out.initEnded().setStatus(256); });
  one(0, [](protocol::Message::Builder out) {
    auto receive = out.initReceive();
    receive.setTask(task_id(node_id(1), 5, 0).bits());
    receive.setRegion(region.bits());
  });
  one(3 * detail::page_size, [](protocol::Message::Builder out) {
    auto ahead = out.initPages();
    ahead.setLast(true);
    auto pages = ahead.initPages(2);
    for (unsigned i : {0u, 1u}) {
      pages[i].setAddress(region.address() + (2 + 4 * i) * detail::page_size);
      pages[i].setCount(1 + i);
    }
  });
  one(0, [](protocol::Message::Builder out) {
    image made = detail::image_access::make(task_id(node_id(1), 5, 0), region, 2, {1, 2}, 1,
                                            {{1, 5000, 7, 1, 0}, {2, 9000, 8, 2, 0}}, {{1, 1, 0, 0}, {7, 2, 1, 0}}, {});
    std::vector<std::byte> bytes = made.encode();
    out.initLay().setManifest(kj::arrayPtr(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()));
  });
  one(0, [](protocol::Message::Builder out) { out.initCheckpointed().setGeneration(3); });
  one(0, [](protocol::Message::Builder out) { out.initReady().setEpoch(1); });
  auto host = [&](auto&& fill) {
    one(0, [&](protocol::Message::Builder out) { fill(out.initHost().initAs<protocol::HostMessage>()); });
  };
  host([](protocol::HostMessage::Builder out) { out.initAsk().setWanted(3); });
  host([](protocol::HostMessage::Builder out) { out.initState().setReason("busy"); });
  host([](protocol::HostMessage::Builder out) {
    auto launch = out.initLaunch();
    launch.setPath("/bin/true");
    launch.initArguments(2).set(1, "x");
  });
  host([](protocol::HostMessage::Builder out) { out.initRegister().initGrants(2)[0].setHost("castor"); });
  // Several in a row, with a ping between.
  input row = all[0];
  detail::frame_header ping{detail::frame_magic, 2, 0, 0, 0, 0};
  append(row, &ping, sizeof ping);
  append(row, all[1].data(), all[1].size());
  all.push_back(row);
  return all;
}

bool migrate_fuzz::feed(std::span<const std::uint8_t> bytes) {
  try {
    return read_stream(bytes);
  } catch (const kj::Exception&) {
    return false;
  } catch (const error&) {
    return false;
  }
}
