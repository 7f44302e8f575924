// What is decoded from a message's attachment or a carrier's part of an offer, and what a node's helpers read.
#include "fuzz.hpp"

#include <functional>
#include <map>
#include <set>

#include <migrate/cluster/cluster_event.hpp>
#include <migrate/cluster/eviction_report.hpp>
#include <migrate/cluster/host_services.hpp>
#include <migrate/cluster/launch_order.hpp>
#include <migrate/file/home_pipe.hpp>
#include <migrate/file/inbox.hpp>
#include <migrate/file/surroundings.hpp>
#include <migrate/home/process_record.hpp>
#include <migrate/home/signal_state.hpp>
#include <migrate/program/protocol.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/outcome.hpp>
#include <migrate/transfer/checkpoint_note.hpp>
#include <migrate/transfer/reopening.hpp>
#include <migrate/transfer/statistics.hpp>

using namespace migrate;

namespace {

struct decoder {
  void (*decode)(
      byte_reader& in); // throws migrate::error, or std::exception for what was an exception of a task
  void (*encode)(byte_writer& out);
};

template <class T> T sample() { return T{}; }

template <class T> constexpr decoder of() {
  return {[](byte_reader& in) {
            T value = in.get<T>();
            byte_writer again;
            again.put<T>(value);
            byte_reader second(again.bytes().data(), again.bytes().size());
            static_cast<void>(second.get<T>());
            if (second.left() != 0) std::abort();
          },
          [](byte_writer& out) { out.put<T>(sample<T>()); }};
}

template <> std::string sample() { return "text"; }
template <> std::vector<std::string> sample() { return {"one", "", "three"}; }
template <> std::map<int, std::string> sample() { return {{1, "one"}, {2, "two"}}; }
template <> std::variant<int, std::string> sample() { return "other"; }
template <> std::optional<std::pair<bool, double>> sample() { return std::pair(true, 1.5); }
template <> detail::keeping::program_start sample() {
  detail::keeping::program_start made;
  made.executables = {"/bin/true"};
  made.arguments = {"true"};
  made.limits.resize(2);
  made.targets = {0, 1, 2};
  return made;
}

template <class Exception> constexpr decoder thrown() {
  return {[](byte_reader& in) {
            try {
              detail::throw_encoded_exception(in);
            } catch (const Exception&) {
            }
          },
          [](byte_writer& out) {
            try {
              throw Exception("what it was");
            } catch (...) {
              detail::encode_current_exception(out);
            }
          }};
}

const decoder decoders[] = {
    of<std::string>(),
    of<std::vector<std::string>>(),
    of<std::map<int, std::string>>(),
    of<std::set<std::vector<std::uint16_t>>>(),
    of<std::variant<int, std::string>>(),
    of<std::optional<std::pair<bool, double>>>(),
    of<std::tuple<bool, std::vector<bool>, std::array<std::string, 2>>>(),
    of<std::u32string>(),
    of<cluster_event>(),
    of<eviction_report>(),
    of<host_request>(),
    of<host_event>(),
    of<std::vector<granted_host>>(),
    of<move_statistics>(),
    of<detail::home_surroundings>(),
    of<detail::pipe_end>(),
    of<detail::pipe_state>(),
    of<detail::shared_offset>(),
    of<detail::offset_step>(),
    of<detail::wait_request>(),
    of<std::vector<signal_info>>(),
    of<detail::keeping::program_start>(),
    of<detail::file_carrying::reopening>(),
    thrown<std::runtime_error>(),
    thrown<std::invalid_argument>(),
    thrown<std::length_error>(),
    {[](byte_reader& in) {
       std::vector<std::byte> metadata(in.left());
       in.get(metadata.data(), metadata.size());
       if (detail::read_checkpoint(metadata).second.size() >= metadata.size()) std::abort();
     },
     [](byte_writer& out) {
       out.put(detail::checkpoint_note{});
       out.put(std::string("bundle"));
     }},
    {[](byte_reader& in) {
       detail::inbox box;
       box.decode(task_id(node_id(1), 2, 0), in);
       byte_writer again;
       box.encode(again);
       detail::inbox second;
       byte_reader from(again.bytes().data(), again.bytes().size());
       second.decode(task_id(node_id(1), 2, 0), from);
     },
     [](byte_writer& out) {
       detail::inbox box;
       box.lane(5).push(detail::letter_stock::make(task_id(node_id(2), 3, 0), 5, 0, "mail", 4));
       box.expected[task_id(node_id(2), 3, 0)] = 1;
       box.channel(task_id(node_id(2), 4, 0))
           .unseen.push_back(detail::letter_stock::make(task_id(node_id(1), 2, 0), 5, 7, "sent", 4));
       box.encode(out);
     }},
    {[](byte_reader& in) {
       detail::signal_inbox box;
       box.decode(in);
       while (box.take(~detail::signal_bits{0})) {
       }
       if (!box.pending.empty()) std::abort();
     },
     [](byte_writer& out) {
       detail::signal_inbox box;
       box.add({.number = SIGUSR1});
       box.add({.number = 40});
       box.encode(out);
     }},
};

std::string text_of(byte_reader& in) {
  std::string text(in.left(), 0);
  in.get(text.data(), text.size());
  return text;
}

void put_text(byte_writer& out, const std::string& text) { out.put(text.data(), text.size()); }

const decoder texts[] = {
    {[](byte_reader& in) {
       if (auto order = detail::decode_order(text_of(in))) static_cast<void>(encode(*order));
     },
     [](byte_writer& out) {
       detail::launch_order order;
       order.executable = {{1, 2, 3}, "/bin/true", "/store"};
       order.arguments = {"true"};
       put_text(out, encode(order));
     }},
    {[](byte_reader& in) {
       if (auto report = detail::decode_report(text_of(in))) static_cast<void>(encode(*report));
     },
     [](byte_writer& out) { put_text(out, encode(detail::warden_report{})); }},
    {[](byte_reader& in) {
       std::string text = text_of(in);
       if (auto task = detail::parse_task_id(text); task && to_string(*task) != text) std::abort();
     },
     [](byte_writer& out) { put_text(out, "3.42"); }},
    {[](byte_reader& in) {
       std::string text = text_of(in);
       if (auto address = detail::parse_content_address(text); address && to_string(*address) != text)
         std::abort();
     },
     [](byte_writer& out) {
       put_text(out, to_string(detail::content_address{1, 2, 3}));
     }},
};

template <class F> void for_each_decoder(F&& visit) {
  std::uint8_t number = 0;
  for (const decoder& each : decoders) visit(number++, each);
  for (const decoder& each : texts) visit(number++, each);
}

} // namespace

std::vector<migrate_fuzz::input> migrate_fuzz::seeds() {
  std::vector<input> all;
  for_each_decoder([&](std::uint8_t number, const decoder& each) {
    byte_writer out;
    each.encode(out);
    all.push_back({number});
    append(all.back(), out.bytes().data(), out.bytes().size());
  });
  return all;
}

bool migrate_fuzz::feed(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return false;
  constexpr std::size_t count = std::size(decoders) + std::size(texts);
  std::size_t number = bytes[0] % count;
  const decoder& which =
      number < std::size(decoders) ? decoders[number] : texts[number - std::size(decoders)];
  byte_reader in(reinterpret_cast<const std::byte*>(bytes.data()) + 1, bytes.size() - 1);
  try {
    which.decode(in);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}
