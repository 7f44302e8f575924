// Turning values into bytes and back, for what passes between tasks: messages, results, exceptions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <migrate/error.hpp>
#include <migrate/id.hpp>

namespace migrate {

class byte_writer {
public:
  void put(const void* data, std::size_t bytes) {
    if (bytes == 0) return;
    std::size_t old = bytes_.size();
    bytes_.resize(old + bytes);
    std::memcpy(bytes_.data() + old, data, bytes);
  }
  template <class T> void put(const T& value);

  const std::vector<std::byte>& bytes() const noexcept { return bytes_; }
  std::vector<std::byte>& bytes() noexcept { return bytes_; }

private:
  std::vector<std::byte> bytes_;
};

class byte_reader {
public:
  byte_reader(const std::byte* data, std::size_t bytes) noexcept : at_(data), end_(data + bytes) {}

  void get(void* data, std::size_t bytes) {
    if (bytes > left()) throw error(errc::protocol, "a value's bytes end before the value does");
    if (bytes > 0) std::memcpy(data, at_, bytes);
    at_ += bytes;
  }
  template <class T> T get();

  std::size_t count(std::size_t smallest) {
    // A length of a sequence whose items take at least `smallest` bytes each.
    auto items = get<std::uint64_t>();
    if (items > left() / (smallest == 0 ? 1 : smallest))
      throw error(errc::protocol, "a sequence is longer than the bytes that hold it");
    return static_cast<std::size_t>(items);
  }
  std::size_t left() const noexcept { return static_cast<std::size_t>(end_ - at_); }

private:
  const std::byte* at_;
  const std::byte* end_;
};
// Throws migrate::error with errc::protocol when the bytes run out.

template <class T, class = void> struct codec;
// How a T travels. There for trivially copyable types, std::string, vector, array, optional, pair,
// tuple, variant, map-like and set-like containers, and for classes with a member `migrate_fields()` that returns
// std::tie(members...). Specialise it for others: static void encode(byte_writer&, const T&) and static
// T decode(byte_reader&). Pointers travel as they are and mean something only if they point at
// constants of the program.

template <class T> void byte_writer::put(const T& value) { codec<T>::encode(*this, value); }
template <class T> T byte_reader::get() { return codec<T>::decode(*this); }

namespace detail {

template <class T>
concept has_fields = requires(T& value) { value.migrate_fields(); };

template <class T>
concept set_or_map = requires(T& value, typename T::value_type item) {
  typename T::key_type;
  value.emplace(std::move(item));
  value.begin();
};

template <class T> struct without_const_key {
  using type = T;
};
template <class K, class V> struct without_const_key<std::pair<const K, V>> {
  using type = std::pair<K, V>;
};

template <class T>
inline constexpr bool copied_bytewise = std::is_trivially_copyable_v<T> && !has_fields<T> &&
                                        !std::is_reference_v<T> && !std::is_same_v<T, bool>;

} // namespace detail

template <class T> struct codec<T, std::enable_if_t<detail::copied_bytewise<T>>> {
  static void encode(byte_writer& out, const T& value) { out.put(&value, sizeof value); }
  static T decode(byte_reader& in) {
    alignas(T) std::byte storage[sizeof(T)];
    in.get(storage, sizeof storage);
    return *std::launder(reinterpret_cast<T*>(storage));
  }
};

template <> struct codec<bool> {
  static void encode(byte_writer& out, bool value) { out.put(&value, sizeof value); }
  static bool decode(byte_reader& in) {
    auto byte = in.get<std::uint8_t>();
    if (byte > 1) throw error(errc::protocol, "a truth value's byte is neither of the two");
    return byte != 0;
  }
};

template <class T> struct codec<T, std::enable_if_t<detail::has_fields<T>>> {
  static void encode(byte_writer& out, const T& value) {
    std::apply([&](auto&... field) { (out.put(field), ...); }, const_cast<T&>(value).migrate_fields());
  }
  static T decode(byte_reader& in) {
    T value{};
    std::apply([&](auto&... field) { ((field = in.get<std::decay_t<decltype(field)>>()), ...); },
               value.migrate_fields());
    return value;
  }
};

template <class C, class Tr, class A> struct codec<std::basic_string<C, Tr, A>> {
  static void encode(byte_writer& out, const std::basic_string<C, Tr, A>& text) {
    out.put(std::uint64_t{text.size()});
    out.put(text.data(), text.size() * sizeof(C));
  }
  static std::basic_string<C, Tr, A> decode(byte_reader& in) {
    std::basic_string<C, Tr, A> text(in.count(sizeof(C)), C{});
    in.get(text.data(), text.size() * sizeof(C));
    return text;
  }
};

template <class T, class A> struct codec<std::vector<T, A>> {
  static void encode(byte_writer& out, const std::vector<T, A>& items) {
    out.put(std::uint64_t{items.size()});
    if constexpr (detail::copied_bytewise<T> && !std::is_same_v<T, bool>)
      out.put(items.data(), items.size() * sizeof(T));
    else
      for (const T& item : items) out.put<T>(item);
  }
  static std::vector<T, A> decode(byte_reader& in) {
    if constexpr (detail::copied_bytewise<T> && !std::is_same_v<T, bool> &&
                  std::is_default_constructible_v<T>) {
      std::vector<T, A> items(in.count(sizeof(T)));
      in.get(items.data(), items.size() * sizeof(T));
      return items;
    } else {
      std::size_t count = in.count(1);
      std::vector<T, A> items;
      for (std::size_t i = 0; i < count; ++i) items.push_back(in.get<T>());
      return items;
    }
  }
};

template <class T, std::size_t N>
struct codec<std::array<T, N>, std::enable_if_t<!detail::copied_bytewise<std::array<T, N>>>> {
  static void encode(byte_writer& out, const std::array<T, N>& items) {
    for (const T& item : items) out.put(item);
  }
  static std::array<T, N> decode(byte_reader& in) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return std::array<T, N>{(static_cast<void>(I), in.get<T>())...};
    }(std::make_index_sequence<N>{});
  }
};

template <class T> struct codec<std::optional<T>, std::enable_if_t<!detail::copied_bytewise<std::optional<T>>>> {
  static void encode(byte_writer& out, const std::optional<T>& value) {
    out.put(value.has_value());
    if (value) out.put(*value);
  }
  static std::optional<T> decode(byte_reader& in) {
    if (!in.get<bool>()) return std::nullopt;
    return in.get<T>();
  }
};

template <class A, class B>
struct codec<std::pair<A, B>, std::enable_if_t<!detail::copied_bytewise<std::pair<A, B>>>> {
  static void encode(byte_writer& out, const std::pair<A, B>& both) {
    out.put(both.first);
    out.put(both.second);
  }
  static std::pair<A, B> decode(byte_reader& in) {
    A first = in.get<A>();
    return {std::move(first), in.get<B>()};
  }
};

template <class... T>
struct codec<std::tuple<T...>, std::enable_if_t<!detail::copied_bytewise<std::tuple<T...>>>> {
  static void encode(byte_writer& out, const std::tuple<T...>& items) {
    std::apply([&](const auto&... item) { (out.put(item), ...); }, items);
  }
  static std::tuple<T...> decode(byte_reader& in) { return std::tuple<T...>{in.get<T>()...}; }
};

template <class... T>
struct codec<std::variant<T...>, std::enable_if_t<!detail::copied_bytewise<std::variant<T...>>>> {
  static void encode(byte_writer& out, const std::variant<T...>& value) {
    out.put(std::uint64_t{value.index()});
    std::visit([&](const auto& item) { out.put(item); }, value);
  }
  static std::variant<T...> decode(byte_reader& in) {
    auto index = in.get<std::uint64_t>();
    std::optional<std::variant<T...>> value;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((index == I ? void(value.emplace(std::in_place_index<I>, in.get<T>())) : void()), ...);
    }(std::index_sequence_for<T...>{});
    if (!value) throw error(errc::protocol, "a variant's bytes name an alternative that it does not have");
    return std::move(*value);
  }
};

template <class T>
struct codec<T, std::enable_if_t<detail::set_or_map<T> && !detail::copied_bytewise<T>>> {
  using item = typename detail::without_const_key<typename T::value_type>::type;
  static void encode(byte_writer& out, const T& items) {
    out.put(std::uint64_t{items.size()});
    for (const auto& each : items) out.put<item>(each);
  }
  static T decode(byte_reader& in) {
    T items;
    for (std::size_t left = in.count(1); left > 0; --left) items.emplace(in.get<item>());
    return items;
  }
};

} // namespace migrate
