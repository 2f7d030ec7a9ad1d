#include "lifecycle/metrics_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace qsfs::lifecycle {
namespace {

std::string_view take_word(std::string_view& text) {
  const std::size_t end = std::min(text.find(' '), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

}  // namespace

MetricsMerger::Family& MetricsMerger::family_of(std::string_view sample_name) {
  constexpr std::array<std::string_view, 3> kSuffixes = {"_bucket", "_sum", "_count"};
  for (const std::string_view suffix : kSuffixes) {
    if (!sample_name.ends_with(suffix)) continue;
    const auto found = families_.find(sample_name.substr(0, sample_name.size() - suffix.size()));
    if (found != families_.end() &&
        (found->second.type == "histogram" || found->second.type == "summary"))
      return found->second;
  }
  return families_[std::string(sample_name)];
}

void MetricsMerger::add(const std::string& volume, std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.starts_with("# ")) {
      line.remove_prefix(2);
      const std::string_view kind = take_word(line);
      const std::string_view name = take_word(line);
      if (name.empty() || (kind != "HELP" && kind != "TYPE")) continue;
      Family& family = families_[std::string(name)];
      (kind == "HELP" ? family.help : family.type) = line;
      continue;
    }
    const std::size_t name_end = line.find_first_of("{ ");
    if (line.starts_with('#') || name_end == std::string_view::npos || name_end == 0) continue;
    const std::string_view name = line.substr(0, name_end);
    const bool has_labels = line[name_end] == '{';
    const std::string_view rest = line.substr(name_end + (has_labels ? 1 : 0));
    family_of(name).samples += has_labels
                                   ? fmt::format("{}{{volume=\"{}\"{}{}\n", name, volume,
                                                 rest.starts_with('}') ? "" : ",", rest)
                                   : fmt::format("{}{{volume=\"{}\"}}{}\n", name, volume, rest);
  }
}

void MetricsMerger::add_own(std::string_view name, std::string_view help, std::string_view type,
                            const std::string& volume, double value) {
  Family& family = families_[std::string(name)];
  family.help = help;
  family.type = type;
  family.samples += volume.empty() ? fmt::format("{} {}\n", name, value)
                                   : fmt::format("{}{{volume=\"{}\"}} {}\n", name, volume, value);
}

void MetricsMerger::add_gauge(std::string_view name, std::string_view help,
                              const std::string& volume, double value) {
  add_own(name, help, "gauge", volume, value);
}

void MetricsMerger::add_counter(std::string_view name, std::string_view help,
                                const std::string& volume, double value) {
  add_own(name, help, "counter", volume, value);
}

std::string MetricsMerger::text() const {
  std::string out;
  for (const auto& [name, family] : families_) {
    if (family.samples.empty()) continue;
    if (!family.help.empty()) out += fmt::format("# HELP {} {}\n", name, family.help);
    if (!family.type.empty()) out += fmt::format("# TYPE {} {}\n", name, family.type);
    out += family.samples;
  }
  return out;
}

}  // namespace qsfs::lifecycle
