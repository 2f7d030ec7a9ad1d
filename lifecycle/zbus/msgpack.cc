#include "lifecycle/zbus/msgpack.h"

#include <array>

namespace qsfs::lifecycle {
namespace {

constexpr std::uint8_t kNil = 0xc0;
constexpr std::uint8_t kTimeType = 0xff;  // -1.
constexpr std::uint64_t kNanoseconds = 1'000'000'000;

}  // namespace

void MsgpackWriter::head(std::uint8_t code, std::uint64_t value, int size) {
  out_.push_back(static_cast<char>(code));
  for (int shift = 8 * (size - 1); shift >= 0; shift -= 8) {
    out_.push_back(static_cast<char>(value >> shift));
  }
}

void MsgpackWriter::nil() { head(kNil, 0, 0); }

void MsgpackWriter::array(std::size_t count) {
  if (count < 16) return head(static_cast<std::uint8_t>(0x90 | count), 0, 0);
  if (count <= 0xffff) return head(0xdc, count, 2);
  head(0xdd, count, 4);
}

void MsgpackWriter::map(std::size_t count) {
  if (count < 16) return head(static_cast<std::uint8_t>(0x80 | count), 0, 0);
  if (count <= 0xffff) return head(0xde, count, 2);
  head(0xdf, count, 4);
}

void MsgpackWriter::text(std::string_view value) {
  const std::size_t len = value.size();
  if (len < 32) {
    head(static_cast<std::uint8_t>(0xa0 | len), 0, 0);
  } else if (len <= 0xff) {
    head(0xd9, len, 1);
  } else if (len <= 0xffff) {
    head(0xda, len, 2);
  } else {
    head(0xdb, len, 4);
  }
  out_ += value;
}

void MsgpackWriter::binary(Bytes value) {
  const std::size_t len = value.size();
  if (len <= 0xff) {
    head(0xc4, len, 1);
  } else if (len <= 0xffff) {
    head(0xc5, len, 2);
  } else {
    head(0xc6, len, 4);
  }
  out_ += as_text(value);
}

void MsgpackWriter::u64(std::uint64_t value) { head(0xcf, value, 8); }

void MsgpackWriter::time(std::chrono::nanoseconds since_1970) {
  const auto total = static_cast<std::uint64_t>(since_1970.count());
  const std::uint64_t seconds = total / kNanoseconds;
  const std::uint64_t rest = total % kNanoseconds;
  // The 12-byte form is for times that 64 bits of nanoseconds do not reach.
  if (rest == 0 && seconds <= UINT32_MAX) {
    head(0xd6, kTimeType, 1);
    for (int shift = 24; shift >= 0; shift -= 8)
      out_.push_back(static_cast<char>(seconds >> shift));
    return;
  }
  head(0xd7, kTimeType, 1);
  const std::uint64_t packed = (rest << 34) | seconds;
  for (int shift = 56; shift >= 0; shift -= 8) out_.push_back(static_cast<char>(packed >> shift));
}

namespace {

class Parser {
 public:
  explicit Parser(std::string_view bytes) : left_(bytes) {}

  Result<MsgpackValue> value(int depth) {
    if (depth > kMsgpackDepthMax) return fail(Errc::kProtocol, "MessagePack: nested too deep");
    QSFS_ASSIGN(const std::uint64_t code, number(1));
    if (code < 0x80) return unsigned_value(code);
    if (code < 0x90) return container(MsgpackValue::Kind::kMap, code & 0x0f, depth);
    if (code < 0xa0) return container(MsgpackValue::Kind::kArray, code & 0x0f, depth);
    if (code < 0xc0) return bytes_value(MsgpackValue::Kind::kText, code & 0x1f);
    if (code >= 0xe0) return MsgpackValue{.kind = MsgpackValue::Kind::kNegative};
    return coded(code, depth);
  }
  [[nodiscard]] bool at_end() const { return left_.empty(); }

 private:
  static MsgpackValue unsigned_value(std::uint64_t number) {
    return {.kind = MsgpackValue::Kind::kUnsigned, .number = number};
  }

  Result<MsgpackValue> coded(std::uint64_t code, int depth) {
    using Kind = MsgpackValue::Kind;
    // Bytes of the length or of the number, by the low bits of the code.
    constexpr std::array<int, 3> kWidths = {1, 2, 4};
    if (code == kNil) return MsgpackValue{};
    if (code == 0xc2 || code == 0xc3) return MsgpackValue{.kind = Kind::kBool, .number = code & 1};
    if (code >= 0xc4 && code <= 0xc6) return sized(Kind::kBinary, kWidths.at(code - 0xc4), depth);
    if (code >= 0xc7 && code <= 0xc9) {
      QSFS_ASSIGN(const std::uint64_t len, number(kWidths.at(code - 0xc7)));
      return bytes_value(Kind::kOther, len + 1);
    }
    if (code == 0xca || code == 0xcb) {
      QSFS_ASSIGN(const std::uint64_t ignored, number(code == 0xca ? 4 : 8));
      return MsgpackValue{.kind = Kind::kFloat, .number = ignored};
    }
    if (code >= 0xcc && code <= 0xcf) {
      QSFS_ASSIGN(const std::uint64_t positive, number(1 << (code - 0xcc)));
      return unsigned_value(positive);
    }
    if (code >= 0xd0 && code <= 0xd3) return signed_value(1 << (code - 0xd0));
    if (code >= 0xd4 && code <= 0xd8) {
      return bytes_value(Kind::kOther, (std::uint64_t{1} << (code - 0xd4)) + 1);
    }
    if (code >= 0xd9 && code <= 0xdb) return sized(Kind::kText, kWidths.at(code - 0xd9), depth);
    if (code == 0xdc || code == 0xdd) return sized(Kind::kArray, code == 0xdc ? 2 : 4, depth);
    if (code == 0xde || code == 0xdf) return sized(Kind::kMap, code == 0xde ? 2 : 4, depth);
    return fail(Errc::kProtocol, "MessagePack: a code that means nothing");
  }

  Result<MsgpackValue> sized(MsgpackValue::Kind kind, int width, int depth) {
    QSFS_ASSIGN(const std::uint64_t len, number(width));
    if (kind == MsgpackValue::Kind::kArray || kind == MsgpackValue::Kind::kMap) {
      return container(kind, len, depth);
    }
    return bytes_value(kind, len);
  }

  Result<MsgpackValue> signed_value(int width) {
    QSFS_ASSIGN(const std::uint64_t raw, number(width));
    const bool negative = (raw >> (8 * width - 1)) != 0;
    if (negative) return MsgpackValue{.kind = MsgpackValue::Kind::kNegative};
    return unsigned_value(raw);
  }

  Result<MsgpackValue> container(MsgpackValue::Kind kind, std::uint64_t count, int depth) {
    const std::uint64_t values = kind == MsgpackValue::Kind::kMap ? 2 * count : count;
    // Each takes a byte at least: what claims more is refused before it is believed.
    if (values > left_.size()) return cut_short();
    MsgpackValue out{.kind = kind};
    for (std::uint64_t index = 0; index < values; ++index) {
      QSFS_ASSIGN(MsgpackValue item, value(depth + 1));
      out.items.push_back(std::move(item));
    }
    return out;
  }

  Result<MsgpackValue> bytes_value(MsgpackValue::Kind kind, std::uint64_t len) {
    if (len > left_.size()) return cut_short();
    MsgpackValue out{.kind = kind, .bytes = std::string(left_.substr(0, len))};
    left_.remove_prefix(len);
    return out;
  }

  Result<std::uint64_t> number(int width) {
    if (left_.size() < static_cast<std::size_t>(width)) return cut_short();
    std::uint64_t out = 0;
    for (int index = 0; index < width; ++index) {
      out = (out << 8) | static_cast<std::uint8_t>(left_[static_cast<std::size_t>(index)]);
    }
    left_.remove_prefix(static_cast<std::size_t>(width));
    return out;
  }

  static std::unexpected<Error> cut_short() {
    return fail(Errc::kProtocol, "MessagePack: it ends in the middle of a value");
  }

  std::string_view left_;
};

}  // namespace

Result<MsgpackValue> parse_msgpack(std::string_view bytes) {
  Parser parser(bytes);
  auto value = parser.value(0);
  if (value && !parser.at_end()) {
    return fail(Errc::kProtocol, "MessagePack: bytes behind the end of the value");
  }
  return value;
}

}  // namespace qsfs::lifecycle
