// MessagePack, as far as zbus needs it: written byte for byte as Go's client does, read in every
// form that it may come in.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace qsfs::lifecycle {

// Structs are maps with all of their fields, integers keep the width of their type.
class MsgpackWriter {
 public:
  void nil();
  void array(std::size_t count);
  void map(std::size_t count);
  void text(std::string_view value);
  void binary(Bytes value);
  void u64(std::uint64_t value);
  // Extension -1, in the shortest of its three forms.
  void time(std::chrono::nanoseconds since_1970);

  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  void head(std::uint8_t code, std::uint64_t value, int size);

  std::string out_;
};

struct MsgpackValue {
  enum class Kind {
    kNil,
    kBool,
    kUnsigned,
    kNegative,
    kFloat,
    kText,
    kBinary,
    kArray,
    kMap,
    kOther
  };

  Kind kind = Kind::kNil;
  std::uint64_t number = 0;         // kUnsigned, kBool.
  std::string bytes;                // kText, kBinary.
  std::vector<MsgpackValue> items;  // kArray; kMap: keys and values by turns.

  [[nodiscard]] bool is_nil() const { return kind == Kind::kNil; }
};

inline constexpr int kMsgpackDepthMax = 16;

// One value and nothing behind it. kProtocol: it is cut short, too deep, or no MessagePack.
Result<MsgpackValue> parse_msgpack(std::string_view bytes);

}  // namespace qsfs::lifecycle
