// PutState: one put() under way, from plain stripes to placed shards. See object_put.h.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "zstor/manifest.h"
#include "zstor/object_store.h"
#include "zstor/store_core.h"

namespace qsfs::zstor {

// One shard of a stripe that is under way.
struct ShardTry {
  // kIdle: the next try is about to be made, or the shard about to be given up.
  enum class Stage { kIdle, kRunning, kStored, kGivenUp };
  Stage stage = Stage::kIdle;
  // Counts the tries: a task whose number is not this one was given up as late.
  unsigned attempt = 0;
  bool tried_again = false;  // On the same backend, because there was no other.
  std::uint32_t backend = kUnplaced;
  MonotonicTime since{};
};

// A stripe that is under way. Its members are guarded by PutState::mu, but for the buffers, which
// the encoder owns until the first SET begins, and which nobody writes to after that.
struct StripeJob {
  std::uint32_t stripe = 0;
  bool is_last = false;
  std::size_t plain_len = 0;
  std::shared_ptr<StripeBuffers> buffers;
  std::vector<ShardTry> shards;
  unsigned pending = 0;
  unsigned stored = 0;
  MonotonicTime sets_began{};
  Duration most_took{};  // Until k shards were stored.
};

// Shared by the caller and the tasks: a SET that hangs may end after put() has returned.
class PutState : public std::enable_shared_from_this<PutState> {
 public:
  PutState(StoreCore& core, const PutOptions& options, std::shared_ptr<const StripeCodec> codec);

  // Chooses the backends. kUnavailable, kNoSpace.
  Status choose_layout() QSFS_EXCLUDES(mu_);
  // Encodes on cpu, then stores.
  void start(std::shared_ptr<StripeJob> job) QSFS_EXCLUDES(mu_);
  // Gives up SETs that are late; called by whoever waits.
  void look_for_late() QSFS_EXCLUDES(mu_);
  void wait_until_settled() QSFS_EXCLUDES(mu_);
  [[nodiscard]] bool failed() const QSFS_EXCLUDES(mu_);
  // Bytes of shards that were made since the last call, for the limit on what is sent.
  [[nodiscard]] std::uint64_t take_encoded_bytes() { return encoded_bytes_.exchange(0); }
  void set_error(Error error) QSFS_EXCLUDES(mu_);
  [[nodiscard]] std::optional<Error> error() const QSFS_EXCLUDES(mu_);
  // What was stored so far. REQUIRES: settled.
  void fill(Manifest& manifest) const QSFS_EXCLUDES(mu_);
  // `manifest`, cut down to shards that may lie where it does not name them. REQUIRES: fill() has
  // filled it.
  [[nodiscard]] std::vector<Manifest> strays(const Manifest& manifest) const QSFS_EXCLUDES(mu_);

 private:
  struct Placed {
    std::uint32_t backend = kUnplaced;
    std::uint64_t sequential_key = 0;
  };

  // Whose SET may have had its effect, though nobody was told.
  struct Stray {
    std::uint32_t stripe = 0;
    unsigned index = 0;
    std::uint32_t backend = kUnplaced;
  };

  void note_stray_locked(std::uint32_t stripe, unsigned index, std::uint32_t backend)
      QSFS_REQUIRES(mu_);
  void encode(const std::shared_ptr<StripeJob>& job) QSFS_EXCLUDES(mu_);
  // Begins the next try of a shard, or gives it up.
  void store_shard(const std::shared_ptr<StripeJob>& job, unsigned index) QSFS_EXCLUDES(mu_);
  // On the backend's lane.
  void run_set(const std::shared_ptr<StripeJob>& job, unsigned index, unsigned attempt,
               std::uint32_t backend) QSFS_EXCLUDES(mu_);
  [[nodiscard]] Result<Buffer> set(std::uint32_t backend, std::uint32_t stripe, unsigned index,
                                   Bytes shard);
  void set_succeeded_locked(StripeJob& job, unsigned index, Bytes key) QSFS_REQUIRES(mu_);
  // Decides what follows a failed SET: another backend, the same once more, or none.
  void set_failed_locked(StripeJob& job, unsigned index, const Error& error) QSFS_REQUIRES(mu_);
  void give_up_locked(StripeJob& job, unsigned index) QSFS_REQUIRES(mu_);
  void shard_decided_locked(StripeJob& job) QSFS_REQUIRES(mu_);
  void stripe_settled_locked(StripeJob& job) QSFS_REQUIRES(mu_);
  // No shard of this put goes to `backend` any more; those of the next stripes get another.
  void exclude_locked(std::uint32_t backend) QSFS_REQUIRES(mu_);
  // Whether another backend could take over what `backend` has.
  [[nodiscard]] bool has_substitute_locked(unsigned index, std::uint32_t backend) const
      QSFS_REQUIRES(mu_);
  [[nodiscard]] Result<Placement> place_locked(const std::vector<bool>& excluded,
                                               const std::vector<std::uint32_t>& pinned) const
      QSFS_REQUIRES(mu_);
  [[nodiscard]] Placed& placed_locked(std::uint32_t stripe, unsigned index) QSFS_REQUIRES(mu_);

  StoreCore& core_;
  const ObjectId id_;
  const std::uint64_t generation_;
  const std::shared_ptr<const StripeCodec> codec_;
  const unsigned data_shards_;
  const unsigned needed_;
  const unsigned total_;
  // As they were when the put began; one whose mode was not known then is excluded.
  std::vector<bool> sequential_;

  std::atomic<std::uint64_t> encoded_bytes_ = 0;

  mutable Mutex mu_;
  CondVar settled_;
  std::vector<bool> excluded_ QSFS_GUARDED_BY(mu_);
  std::vector<std::uint32_t> layout_ QSFS_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<StripeJob>> jobs_ QSFS_GUARDED_BY(mu_);
  std::vector<StripeInfo> stripes_ QSFS_GUARDED_BY(mu_);
  std::vector<Placed> placed_ QSFS_GUARDED_BY(mu_);
  std::vector<Stray> strays_ QSFS_GUARDED_BY(mu_);
  std::optional<Error> error_ QSFS_GUARDED_BY(mu_);
  std::string last_set_error_ QSFS_GUARDED_BY(mu_);
  bool out_of_space_ QSFS_GUARDED_BY(mu_) = false;
};

}  // namespace qsfs::zstor
