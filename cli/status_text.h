// What a volume answers, as text for people. Pure; never fails: what a document lacks, or holds in
// another form than expected, is left out.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace qsfs::cli {

// Of GET /status: the verdict and its reasons, what is behind, cache, backends by group, and the
// next command to run.
std::string status_text(const nlohmann::json& document);

// Of GET /info.
std::string info_text(std::string_view path, const nlohmann::json& document);

// Prometheus text as one JSON object {"name{labels}": value}. What JSON has no number for (NaN,
// +Inf) is a text.
std::string stats_json(std::string_view metrics);

}  // namespace qsfs::cli
