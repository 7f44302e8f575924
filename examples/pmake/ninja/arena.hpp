// Memory that is given back all at once: the graph of a manifest lives as long as the run that reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pmake {

class arena {
public:
  arena() = default;
  arena(const arena&) = delete;
  arena& operator=(const arena&) = delete;

  void* allocate(std::size_t bytes, std::size_t alignment) {
    auto at = (reinterpret_cast<std::uintptr_t>(next_) + alignment - 1) & ~(std::uintptr_t{alignment} - 1);
    if (next_ == nullptr || at + bytes > reinterpret_cast<std::uintptr_t>(end_))
      return fresh(bytes, alignment);
    next_ = reinterpret_cast<std::byte*>(at + bytes);
    return reinterpret_cast<void*>(at);
  }

  template <class T, class... Arguments> T* make(Arguments&&... arguments) {
    static_assert(std::is_trivially_destructible_v<T>, "nothing in an arena is destroyed");
    return new (allocate(sizeof(T), alignof(T))) T{std::forward<Arguments>(arguments)...};
  }

  template <class T> T* array(std::size_t count) {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);
    return static_cast<T*>(allocate(count * sizeof(T), alignof(T)));
  }
  // Not initialised.

  std::string_view copy(std::string_view text) {
    if (text.empty()) return {};
    char* bytes = array<char>(text.size());
    std::memcpy(bytes, text.data(), text.size());
    return {bytes, text.size()};
  }

  std::string_view keep(std::unique_ptr<char[]> bytes, std::size_t size) {
    blocks_.push_back(std::move(bytes));
    return {blocks_.back().get(), size};
  }
  // Takes over what was allocated elsewhere: a manifest's text, into which the graph points.

private:
  static constexpr std::size_t block_bytes = std::size_t{256} << 10;

  void* fresh(std::size_t bytes, std::size_t alignment) {
    if (bytes + alignment >
        block_bytes / 4) { // a block of its own, so that little of the current one is lost
      auto* own = blocks_.emplace_back(new char[bytes + alignment]).get();
      return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(own) + alignment - 1) &
                                     ~(std::uintptr_t{alignment} - 1));
    }
    next_ = reinterpret_cast<std::byte*>(blocks_.emplace_back(new char[block_bytes]).get());
    end_ = next_ + block_bytes;
    return allocate(bytes, alignment);
  }

  std::vector<std::unique_ptr<char[]>> blocks_;
  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
};

template <class T> class arena_list {
  // A growing array of plain values in an arena: 16 bytes while it is empty.
public:
  T* begin() const noexcept { return first_; }
  T* end() const noexcept { return first_ + size_; }
  std::uint32_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T& operator[](std::size_t index) const noexcept { return first_[index]; }
  T& back() const noexcept { return first_[size_ - 1]; }

  void push_back(arena& memory, T value) {
    if (size_ == capacity_) reserve(memory, capacity_ == 0 ? 1 : 2 * capacity_);
    first_[size_++] = value;
  }
  void insert(arena& memory, std::uint32_t index, const T* values, std::uint32_t count) {
    if (count == 0) return;
    if (size_ + count > capacity_) reserve(memory, size_ + count);
    std::memmove(first_ + index + count, first_ + index, (size_ - index) * sizeof(T));
    std::memcpy(first_ + index, values, count * sizeof(T));
    size_ += count;
  }
  void erase(std::uint32_t index) noexcept {
    std::memmove(first_ + index, first_ + index + 1, (size_ - index - 1) * sizeof(T));
    --size_;
  }
  void assign(arena& memory, const T* values, std::uint32_t count) {
    size_ = 0;
    insert(memory, 0, values, count);
  }

private:
  void reserve(arena& memory, std::uint32_t capacity) {
    T* larger = memory.array<T>(capacity);
    if (size_ > 0) std::memcpy(larger, first_, size_ * sizeof(T));
    first_ = larger;
    capacity_ = capacity;
  }

  T* first_ = nullptr;
  std::uint32_t size_ = 0, capacity_ = 0;
};

} // namespace pmake
