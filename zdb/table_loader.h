// Fills the table of a user-mode namespace from its index at a start, on several threads: nearly
// all of such a start is waiting for memory, and the shards of the table do not touch each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "zdb/key_table.h"

namespace qsfs::zdb {

inline constexpr std::size_t kTableLoadersMax = 4;
// What one thread is given at once, and how many of these may wait for it.
inline constexpr std::size_t kLoadBatch = 4096;
inline constexpr std::size_t kLoadBatchesMax = 8;

// Threads: `zdb-load-N`, started with the first full batch. Not thread-safe itself; borrows the
// table, which nobody else may use until finish().
class TableLoader {
 public:
  // `threads`: the caller's included; clamped to 1 to kTableLoadersMax.
  TableLoader(KeyTable& table, std::size_t threads);
  // Without finish(): what is left is dropped.
  ~TableLoader();
  TableLoader(const TableLoader&) = delete;
  TableLoader& operator=(const TableLoader&) = delete;

  // Those of one key take effect in the order of the calls.
  void put(const KeyHash& hash, const EntryPlace& place);
  void erase(const KeyHash& hash);

  // What all of it has added to the counters of the namespace and of its files.
  struct Live {
    std::int64_t entries = 0;
    std::int64_t file_bytes = 0;  // Whole entries.
    std::int64_t value_bytes = 0;
  };
  // By slot; those behind the end have nothing. Returns when everything is in the table.
  std::vector<Live> finish();

 private:
  struct Step {
    KeyHash hash;
    EntryPlace place;  // Slot 0: an erasure.
  };
  struct Part {
    std::vector<Step> next;  // Of the caller.
    std::vector<Live> live;  // Of the thread.
    std::jthread thread;
  };
  struct Queue {
    Mutex mu;  // Innermost: nothing else is taken under it.
    CondVar changed;
    std::deque<std::vector<Step>> batches QSFS_GUARDED_BY(mu);
    bool is_over QSFS_GUARDED_BY(mu) = false;
  };

  void add(const Step& step);
  void hand_over(std::size_t index);
  void apply(const std::vector<Step>& batch, std::vector<Live>& live);
  void run(std::size_t index);
  void stop();

  KeyTable& table_;
  std::vector<Part> parts_;
  std::vector<std::unique_ptr<Queue>> queues_;  // Of the same parts; the first is not used.
};

}  // namespace qsfs::zdb
