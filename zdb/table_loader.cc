#include "zdb/table_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/thread.h"

namespace qsfs::zdb {
namespace {

// The table is far larger than the processor's caches: what is needed soon is fetched meanwhile,
// the buckets first.
constexpr std::size_t kBucketsAhead = 24;
constexpr std::size_t kNodesAhead = 12;

TableLoader::Live& of_slot(std::vector<TableLoader::Live>& live, std::uint32_t slot) {
  if (slot >= live.size()) live.resize(slot + 1);
  return live[slot];
}

}  // namespace

TableLoader::TableLoader(KeyTable& table, std::size_t threads)
    : table_(table), parts_(std::clamp<std::size_t>(threads, 1, kTableLoadersMax)) {
  for (std::size_t i = 0; i < parts_.size(); ++i) queues_.push_back(std::make_unique<Queue>());
}

TableLoader::~TableLoader() {
  for (const auto& queue : queues_) {
    const MutexLock lock(queue->mu);
    queue->batches.clear();
  }
  stop();
}

void TableLoader::put(const KeyHash& hash, const EntryPlace& place) {
  add({.hash = hash, .place = place});
}

void TableLoader::erase(const KeyHash& hash) { add({.hash = hash, .place = {}}); }

void TableLoader::add(const Step& step) {
  const std::size_t index = KeyTable::shard_of(step.hash) % parts_.size();
  std::vector<Step>& next = parts_[index].next;
  if (next.capacity() == 0) next.reserve(kLoadBatch);
  next.push_back(step);
  if (next.size() == kLoadBatch) hand_over(index);
}

// The first part is the caller's own.
void TableLoader::hand_over(std::size_t index) {
  Part& part = parts_[index];
  if (index == 0) {
    apply(part.next, part.live);
    part.next.clear();
    return;
  }
  if (!part.thread.joinable()) {
    part.thread = start_thread(fmt::format("zdb-load-{}", index),
                               [this, index](const std::stop_token&) { run(index); });
  }
  Queue& queue = *queues_[index];
  const MutexLock lock(queue.mu);
  while (queue.batches.size() >= kLoadBatchesMax) queue.changed.wait(queue.mu);
  queue.batches.push_back(std::exchange(part.next, {}));
  queue.changed.notify_all();
}

void TableLoader::run(std::size_t index) {
  Queue& queue = *queues_[index];
  while (true) {
    std::vector<Step> batch;
    {
      const MutexLock lock(queue.mu);
      while (queue.batches.empty() && !queue.is_over) queue.changed.wait(queue.mu);
      if (queue.batches.empty()) return;
      batch = std::move(queue.batches.front());
      queue.batches.pop_front();
    }
    queue.changed.notify_all();
    apply(batch, parts_[index].live);
  }
}

void TableLoader::apply(const std::vector<Step>& batch, std::vector<Live>& live) {
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (i + kBucketsAhead < batch.size()) table_.prefetch_bucket(batch[i + kBucketsAhead].hash);
    if (i + kNodesAhead < batch.size()) table_.prefetch_node(batch[i + kNodesAhead].hash);
    const auto& [hash, place] = batch[i];
    const bool is_put = place.slot != 0;
    const auto before = is_put ? table_.put(hash, place) : table_.erase(hash);
    const auto count = [&live](const EntryPlace& entry, std::int64_t times) {
      Live& file = of_slot(live, entry.slot);
      file.entries += times;
      file.file_bytes += times * static_cast<std::int64_t>(entry.total_len());
      file.value_bytes += times * std::int64_t{entry.value_len};
    };
    if (is_put) count(place, 1);
    if (before) count(*before, -1);
  }
}

void TableLoader::stop() {
  for (const auto& queue : queues_) {
    {
      const MutexLock lock(queue->mu);
      queue->is_over = true;
    }
    queue->changed.notify_all();
  }
  for (Part& part : parts_) {
    if (part.thread.joinable()) part.thread.join();
  }
}

std::vector<TableLoader::Live> TableLoader::finish() {
  // The other threads end while the caller does its own part, and what is too little for a thread.
  for (std::size_t i = 1; i < parts_.size(); ++i) {
    if (parts_[i].thread.joinable()) hand_over(i);
  }
  for (Part& part : parts_) {
    if (!part.thread.joinable()) apply(std::exchange(part.next, {}), part.live);
  }
  stop();
  std::vector<Live> sum;
  for (Part& part : parts_) {
    for (std::uint32_t slot = 0; slot < part.live.size(); ++slot) {
      Live& all = of_slot(sum, slot);
      all.entries += part.live[slot].entries;
      all.file_bytes += part.live[slot].file_bytes;
      all.value_bytes += part.live[slot].value_bytes;
    }
    part.live.clear();
  }
  return sum;
}

}  // namespace qsfs::zdb
