// Prometheus text of many volumes as one document.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "lifecycle/manager.h"

namespace qsfs::lifecycle {

// Collects the metrics of several processes; each sample gets the label volume="ID", and samples of
// one name stand together under one header, as the format demands. Not thread-safe.
class MetricsMerger {
 public:
  // Lines that are neither comment nor sample are left out.
  void add(const std::string& volume, std::string_view text);
  // One of the daemon's own.
  void add_gauge(std::string_view name, std::string_view help, const std::string& volume,
                 double value);
  void add_counter(std::string_view name, std::string_view help, const std::string& volume,
                   double value);
  std::string text() const;

 private:
  struct Family {
    std::string help;
    std::string type;
    std::string samples;
  };
  void add_own(std::string_view name, std::string_view help, std::string_view type,
               const std::string& volume, double value);
  // The family of a sample: "x_bucket", "x_sum" and "x_count" belong to the histogram "x".
  Family& family_of(std::string_view sample_name);

  std::map<std::string, Family, std::less<>> families_;
};

}  // namespace qsfs::lifecycle
