#include "cli/units.h"

#include <fmt/format.h>

#include <array>

namespace qsfs::cli {

std::string human_bytes(std::uint64_t bytes) {
  static constexpr std::array<std::string_view, 7> kUnits = {"B",   "KiB", "MiB", "GiB",
                                                             "TiB", "PiB", "EiB"};
  constexpr double kStep = 1024;
  constexpr double kWholeFrom = 9.95;       // "9.9 GiB", then "10 GiB".
  constexpr double kNextUnitFrom = 1023.5;  // Would be rounded to "1024".
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= kNextUnitFrom && unit + 1 < kUnits.size()) {
    value /= kStep;
    ++unit;
  }
  const int digits = unit > 0 && value < kWholeFrom ? 1 : 0;
  return fmt::format("{:.{}f} {}", value, digits, kUnits.at(unit));
}

std::string human_seconds(std::uint64_t seconds) {
  constexpr std::uint64_t kMinute = 60;
  constexpr std::uint64_t kHour = 60 * kMinute;
  constexpr std::uint64_t kDay = 24 * kHour;
  if (seconds < kMinute) return fmt::format("{} s", seconds);
  if (seconds < kHour) return fmt::format("{} min {} s", seconds / kMinute, seconds % kMinute);
  if (seconds < kDay) {
    return fmt::format("{} h {} min", seconds / kHour, seconds % kHour / kMinute);
  }
  return fmt::format("{} d {} h", seconds / kDay, seconds % kDay / kHour);
}

std::string printable(std::string_view text) {
  constexpr unsigned char kDelete = 0x7f;
  std::string out(text);
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == kDelete) c = '?';
  }
  return out;
}

}  // namespace qsfs::cli
