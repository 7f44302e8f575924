// How a task ended, as bytes: its value, or its exception.
#pragma once

#include <cstdlib>
#include <cxxabi.h>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <typeinfo>

#include <migrate/error.hpp>
#include <migrate/memory/current_heap.hpp>
#include <migrate/memory/heap.hpp>
#include <migrate/task/codec.hpp>
#include <migrate/task/control_block.hpp>
#include <migrate/task/usage.hpp>

namespace migrate {

class task_error : public error {
public:
  task_error(std::string type, const std::string& what)
      : error(errc::task_failed, what), type_(std::move(type)) {}
  const std::string& type() const noexcept { return type_; }
  // The name of the exception's type, as the task threw it.

private:
  std::string type_;
};
// What join() throws for an exception whose type does not travel: anything but the standard
// library's own exceptions, migrate::error, and types given to carry_exception().

template <class E> void carry_exception();
// Lets exceptions of type E (which needs a codec) come back to whoever joins, as an E. Call it in main
// before the node starts, on every node alike. At most 64 types.

namespace detail {

struct node_bytes {
  node_bytes() noexcept = default;
  node_bytes(const void* data, std::size_t size) {
    if (size == 0) return;
    node_heap_scope scope;
    data_.reset(new std::byte[size]);
    size_ = size;
    std::memcpy(data_.get(), data, size);
  }
  const std::byte* data() const noexcept { return data_.get(); }
  std::size_t size() const noexcept { return size_; }

private:
  std::unique_ptr<std::byte[]> data_;
  std::size_t size_ = 0;
};
// Bytes in the node's own heap, wherever they are made.

inline constexpr std::size_t outcome_limit = std::size_t{64} << 20; // what one message carries

struct outcome {
  outcome_kind kind = outcome_kind::none;
  node_bytes bytes;
  int status = 0; // in the form of wait(2)
  task_usage used;
};

struct exception_carrier {
  const std::type_info* type;
  void (*encode)(byte_writer&);               // rethrows the current exception; called in its handler
  void (*decode_and_throw)(byte_reader&);
};

struct exception_carriers {
  static constexpr std::size_t limit = 64;
  exception_carrier entries[limit];
  std::size_t count = 0;
};
inline exception_carriers carried_exceptions;

enum class standard_exception : std::uint8_t {
  other, carried, migrate_error, system_error, bad_alloc, logic_error, invalid_argument, domain_error,
  length_error, out_of_range, runtime_error, range_error, overflow_error, underflow_error,
};

inline std::string demangled(const std::type_info& type) {
  int status = 0;
  char* name = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string text = status == 0 && name != nullptr ? name : type.name();
  std::free(name);
  return text;
}

inline void encode_current_exception(byte_writer& out) {
  // In a handler. The most derived of the standard types goes first.
  const std::type_info* type = abi::__cxa_current_exception_type();
  for (std::size_t i = 0; type != nullptr && i < carried_exceptions.count; ++i)
    if (*carried_exceptions.entries[i].type == *type) {
      out.put(standard_exception::carried);
      out.put(std::uint64_t{i});
      carried_exceptions.entries[i].encode(out);
      return;
    }
  auto text = [&](standard_exception kind, const std::exception& thrown) {
    out.put(kind);
    out.put(std::string(type != nullptr ? demangled(*type) : "unknown"));
    out.put(std::string(thrown.what()));
  };
  auto exactly = [&](const std::type_info& wanted) { return type != nullptr && *type == wanted; };
  try {
    throw;
  } catch (const error& thrown) {
    text(standard_exception::migrate_error, thrown);
    out.put(thrown.code().value());
    out.put(thrown.code().category() == error_category());
  } catch (const std::system_error& thrown) {
    text(exactly(typeid(std::system_error)) ? standard_exception::system_error : standard_exception::other,
         thrown);
    out.put(thrown.code().value());
    out.put(thrown.code().category() == std::generic_category());
  } catch (const std::bad_alloc& thrown) {
    text(standard_exception::bad_alloc, thrown);
  } catch (const std::logic_error& thrown) {
    text(exactly(typeid(std::invalid_argument)) ? standard_exception::invalid_argument
         : exactly(typeid(std::domain_error))   ? standard_exception::domain_error
         : exactly(typeid(std::length_error))   ? standard_exception::length_error
         : exactly(typeid(std::out_of_range))   ? standard_exception::out_of_range
         : exactly(typeid(std::logic_error))    ? standard_exception::logic_error
                                                : standard_exception::other,
         thrown);
  } catch (const std::runtime_error& thrown) {
    text(exactly(typeid(std::range_error))       ? standard_exception::range_error
         : exactly(typeid(std::overflow_error))  ? standard_exception::overflow_error
         : exactly(typeid(std::underflow_error)) ? standard_exception::underflow_error
         : exactly(typeid(std::runtime_error))   ? standard_exception::runtime_error
                                                 : standard_exception::other,
         thrown);
  } catch (const std::exception& thrown) {
    text(standard_exception::other, thrown);
  } catch (...) {
    out.put(standard_exception::other);
    out.put(std::string(type != nullptr ? demangled(*type) : "unknown"));
    out.put(std::string("an exception that is no std::exception"));
  }
}

[[noreturn]] inline void throw_encoded_exception(byte_reader& in) {
  auto kind = in.get<standard_exception>();
  if (kind == standard_exception::carried) {
    auto index = in.get<std::uint64_t>();
    if (index < carried_exceptions.count)
      carried_exceptions.entries[static_cast<std::size_t>(index)].decode_and_throw(in);
    throw error(errc::protocol, "an exception of a type that this node does not carry");
  }
  auto type = in.get<std::string>();
  auto what = in.get<std::string>();
  switch (kind) {
  case standard_exception::migrate_error: {
    int code = in.get<int>();
    const std::error_category& category = in.get<bool>() ? error_category() : std::system_category();
    throw error(std::error_code(code, category), what);
  }
  case standard_exception::system_error: {
    int code = in.get<int>();
    const std::error_category& category = in.get<bool>() ? std::generic_category() : std::system_category();
    std::error_code value(code, category);
    std::string suffix = ": " + value.message();
    if (what == value.message()) throw std::system_error(value);
    if (what.ends_with(suffix)) what.resize(what.size() - suffix.size());
    throw std::system_error(value, what);
  }
  case standard_exception::bad_alloc: throw region_exhausted(what.c_str());
  case standard_exception::logic_error: throw std::logic_error(what);
  case standard_exception::invalid_argument: throw std::invalid_argument(what);
  case standard_exception::domain_error: throw std::domain_error(what);
  case standard_exception::length_error: throw std::length_error(what);
  case standard_exception::out_of_range: throw std::out_of_range(what);
  case standard_exception::runtime_error: throw std::runtime_error(what);
  case standard_exception::range_error: throw std::range_error(what);
  case standard_exception::overflow_error: throw std::overflow_error(what);
  case standard_exception::underflow_error: throw std::underflow_error(what);
  default: throw task_error(type, what);
  }
}

} // namespace detail

template <class E> void carry_exception() {
  auto& all = detail::carried_exceptions;
  if (all.count == detail::exception_carriers::limit)
    throw error(errc::not_movable, "carry_exception: 64 exception types are carried already");
  all.entries[all.count++] = {&typeid(E),
                              [](byte_writer& out) {
                                try {
                                  throw;
                                } catch (const E& thrown) {
                                  out.put(thrown);
                                }
                              },
                              [](byte_reader& in) { throw in.get<E>(); }};
}

} // namespace migrate
