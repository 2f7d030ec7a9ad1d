// Sizes, durations, and the words of the configuration.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "zstor/config.h"

namespace qsfs::zstor {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array kSizeUnits = {Unit{"TiB", 1024 * kGiB}, Unit{"GiB", kGiB}, Unit{"MiB", kMiB},
                                   Unit{"KiB", kKiB}, Unit{"B", 1}};

constexpr std::uint64_t kNsPerMs = 1'000'000;
constexpr std::uint64_t kNsPerSecond = 1'000 * kNsPerMs;
constexpr std::array kTimeUnits = {Unit{"d", 86'400 * kNsPerSecond},
                                   Unit{"h", 3'600 * kNsPerSecond}, Unit{"m", 60 * kNsPerSecond},
                                   Unit{"s", kNsPerSecond}, Unit{"ms", kNsPerMs}};

constexpr std::string_view kSizeForms =
    "a size is a whole number and B, KiB, MiB, GiB or TiB, such as \"8 MiB\"";
constexpr std::string_view kTimeForms =
    "a time is a whole number and ms, s, m, h or d, such as \"15m\"";

// "<digits> <unit>", with or without the space; a bare number is in `bare`.
Result<std::uint64_t> parse_quantity(std::string_view text, std::span<const Unit> units,
                                     std::uint64_t bare, std::uint64_t max,
                                     std::string_view forms) {
  std::uint64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error == std::errc::invalid_argument) return fail(Errc::kInvalidArgument, std::string(forms));
  std::string_view unit(end, text.data() + text.size());
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  std::uint64_t factor = unit.empty() ? bare : 0;
  for (const Unit& candidate : units) {
    if (unit == candidate.name) factor = candidate.factor;
  }
  if (factor == 0) return fail(Errc::kInvalidArgument, std::string(forms));
  if (error != std::errc{} || count > max / factor) {
    return fail(Errc::kInvalidArgument, "the number is too large");
  }
  return count * factor;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  return parse_quantity(text, kSizeUnits, 1, std::numeric_limits<std::int64_t>::max(), kSizeForms);
}

std::string format_size(std::uint64_t bytes) {
  for (const Unit& unit : kSizeUnits) {
    if (bytes != 0 && bytes % unit.factor == 0) {
      return fmt::format("{} {}", bytes / unit.factor, unit.name);
    }
  }
  return "0 B";
}

Result<Duration> parse_duration(std::string_view text) {
  QSFS_ASSIGN(const std::uint64_t ns,
              parse_quantity(text, kTimeUnits, kNsPerSecond,
                             std::numeric_limits<std::int64_t>::max(), kTimeForms));
  return Duration(static_cast<std::int64_t>(ns));
}

std::string format_duration(Duration duration) {
  const auto ns = static_cast<std::uint64_t>(duration.count());
  for (const Unit& unit : kTimeUnits) {
    if (ns != 0 && ns % unit.factor == 0) return fmt::format("{}{}", ns / unit.factor, unit.name);
  }
  return ns == 0 ? "0s" : fmt::format("{}ms", ns / kNsPerMs);
}

std::string_view to_string(EncryptionAlgorithm algorithm) {
  return algorithm == EncryptionAlgorithm::kAes ? "AES" : "XCHACHA20-POLY1305";
}

std::string_view to_string(Compression algorithm) {
  switch (algorithm) {
    case Compression::kNone:
      return "none";
    case Compression::kSnappy:
      return "snappy";
    case Compression::kZstd:
      break;
  }
  return "zstd";
}

std::string_view to_string(Durability durability) {
  return durability == Durability::kLocal ? "local" : "remote";
}

std::string_view to_string(OnFull on_full) {
  return on_full == OnFull::kBlock ? "block" : "enospc";
}

std::string uuid_to_string(const Uuid& uuid) {
  std::string text = to_hex(uuid);
  for (const std::size_t at : {20UL, 16UL, 12UL, 8UL}) text.insert(at, 1, '-');
  return text;
}

std::optional<Uuid> parse_uuid(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  std::string digits(text);
  for (const std::size_t at : {23UL, 18UL, 13UL, 8UL}) {
    if (digits[at] != '-') return std::nullopt;
    digits.erase(at, 1);
  }
  const std::optional<Buffer> bytes = from_hex(digits);
  if (!bytes) return std::nullopt;
  Uuid uuid{};
  std::copy(bytes->begin(), bytes->end(), uuid.begin());
  return uuid;
}

}  // namespace qsfs::zstor
