#include "zdb/header_guess.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/crc32c.h"

namespace qsfs::zdb {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;  // CRC32C, reflected.
constexpr std::size_t kChunkBytes = 1 * kMiB;

constexpr std::array<std::uint32_t, 256> make_backward_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t state = i << 24;
    for (int bit = 0; bit < 8; ++bit) {
      state = (state & 0x80000000) != 0 ? ((state ^ kPolynomial) << 1) | 1 : state << 1;
    }
    table[i] = state;
  }
  return table;
}

// The state of a CRC before it took `bytes`, after which it was `state`.
std::uint32_t state_before(Bytes bytes, std::uint32_t state) {
  static constexpr auto kTable = make_backward_table();
  for (std::size_t i = bytes.size(); i > 0; --i) {
    state = (state << 8) ^ kTable[state >> 24] ^ std::to_integer<std::uint32_t>(bytes[i - 1]);
  }
  return state;
}

// What the CRC's state must have been once it had taken the salt, given an entry at `offset`.
std::uint32_t state_after_salt(Bytes header_and_key, std::uint64_t offset) {
  const auto crc = load_le<std::uint32_t>(header_and_key.data() + 4);
  const std::uint32_t anchor_state = state_before(header_and_key.subspan(8), ~crc);
  // anchor_state is ~(CRC of salt and offset), which is the state at its end.
  std::array<std::byte, 8> offset_bytes;
  store_le(offset_bytes.data(), offset);
  return state_before(offset_bytes, anchor_state);
}

// A salt after which the state is that: four bytes of it are enough to reach any.
std::uint64_t salt_of_state(std::uint32_t state) {
  constexpr std::array<std::byte, 4> kZeros{};
  const std::uint32_t after_zeros = ~crc32c(kZeros);
  const std::uint32_t rest = after_zeros ^ state_before(kZeros, state);
  return std::uint64_t{rest} << 32;
}

struct Vote {
  std::uint64_t count = 0;
  std::uint64_t first_sequence = UINT64_MAX;
};

class Guesser {
 public:
  explicit Guesser(DiskFile& data) : data_(data) {}

  Status look_at_all() {
    QSFS_ASSIGN(size_, data_.size());
    Buffer chunk(kChunkBytes);
    for (std::uint64_t at = kFileHeaderLen; at < size_;) {
      QSFS_ASSIGN(const std::size_t got, data_.pread(at, chunk));
      for (std::size_t begin = 0; begin < got;) {
        const auto found = find_entry_magic(Bytes(chunk).first(got).subspan(begin));
        if (!found) break;
        QSFS_TRY(look_at(at + begin + *found));
        begin += *found + kEntryAlign;
      }
      at += std::max<std::uint64_t>(got / kEntryAlign * kEntryAlign, kEntryAlign);
    }
    return {};
  }

  [[nodiscard]] const std::unordered_map<std::uint32_t, Vote>& votes() const { return votes_; }

 private:
  // Anything may stand there: only a value that matches its checksum counts.
  Status look_at(std::uint64_t offset) {
    std::array<std::byte, kEntryHeaderLen + kKeyLenMax> head;
    QSFS_ASSIGN(const std::size_t got, data_.pread(offset, head));
    if (got < kEntryHeaderLen) return {};
    const std::size_t key_len = std::to_integer<std::size_t>(head[40]);
    const bool is_value = head[41] == static_cast<std::byte>(EntryType::kValue);
    const auto value_len = load_le<std::uint32_t>(head.data() + 12);
    if (!is_value || key_len == 0 || value_len == 0 || value_len > kValueLenMax ||
        got < kEntryHeaderLen + key_len || offset + entry_len(key_len, value_len) > size_ + 7) {
      return {};
    }
    value_.resize(value_len);
    QSFS_ASSIGN(const std::size_t value_got,
                data_.pread(offset + kEntryHeaderLen + key_len, value_));
    if (value_got < value_len || crc32c(value_) != load_le<std::uint32_t>(head.data() + 8)) {
      return {};
    }
    const std::uint32_t state =
        state_after_salt(Bytes(head).first(kEntryHeaderLen + key_len), offset);
    if (!votes_.contains(state) && votes_.size() >= kSaltVotesMax) return {};
    Vote& vote = votes_[state];
    ++vote.count;
    vote.first_sequence = std::min(vote.first_sequence, load_le<std::uint64_t>(head.data() + 16));
    return {};
  }

  DiskFile& data_;
  std::uint64_t size_ = 0;
  Buffer value_;
  std::unordered_map<std::uint32_t, Vote> votes_;
};

}  // namespace

Result<std::optional<FileHeader>> guess_file_header(DiskFile& data, std::uint32_t file_id,
                                                    NamespaceMode mode) {
  Guesser guesser(data);
  QSFS_TRY(guesser.look_at_all());
  const auto best = std::ranges::max_element(guesser.votes(), {},
                                             [](const auto& entry) { return entry.second.count; });
  if (best == guesser.votes().end()) return std::optional<FileHeader>();
  return std::optional<FileHeader>({.file_id = file_id,
                                    .salt = salt_of_state(best->first),
                                    .first_sequence = best->second.first_sequence,
                                    .created_unix_s = 0,
                                    .mode = mode});
}

}  // namespace qsfs::zdb
