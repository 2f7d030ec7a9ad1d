// Data to measure with: the same bytes on every machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"

namespace qsfs::bench {

inline constexpr double kZipfExponent = 1.42;

// Words of a made-up language, the frequent ones short, with the frequencies of Zipf's law: zstd -1
// packs it about 3.5 times, as it does source code.
inline Buffer sample_text(std::size_t len) {
  constexpr std::size_t kWords = 4000;
  SeededRandom random(1);
  std::vector<std::string> words(kWords);
  std::vector<double> frequency_sums(kWords);
  double sum = 0;
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::size_t letters = 2 + random.below(3) + (i > 60 ? random.below(8) : 0);
    for (std::size_t j = 0; j < letters; ++j) {
      words[i].push_back(static_cast<char>('a' + random.below(26)));
    }
    sum += 1.0 / std::pow(static_cast<double>(i + 1), kZipfExponent);
    frequency_sums[i] = sum;
  }
  Buffer out;
  out.reserve(len + 64);
  while (out.size() < len) {
    const double at = sum * static_cast<double>(random.below(1U << 30)) / (1U << 30);
    const auto word = static_cast<std::size_t>(std::ranges::lower_bound(frequency_sums, at) -
                                               frequency_sums.begin());
    const Bytes bytes = as_bytes(words[word]);
    out.insert(out.end(), bytes.begin(), bytes.end());
    out.push_back(random.below(12) == 0 ? std::byte{'\n'} : std::byte{' '});
  }
  out.resize(len);
  return out;
}

inline Buffer sample_random(std::size_t len) {
  Buffer out(len);
  SeededRandom(2).fill(out);
  return out;
}

}  // namespace qsfs::bench
