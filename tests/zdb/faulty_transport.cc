#include "tests/zdb/faulty_transport.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace qsfs::zdb {
namespace {

std::unexpected<Error> connection_lost() {
  return fail(Errc::kUnavailable, "connection reset by peer");
}

// One lock for all: the faults are shared, and speed does not matter.
struct Shared {
  TransportFaults& faults;
  sim::SimClock& clock;
  Mutex mu;
  std::uint64_t messages QSFS_GUARDED_BY(mu) = 0;
};

// Two to log in and one request: the first request of a new connection is never lost, so that a
// retry always works.
constexpr std::uint64_t kMessagesBeforeLoss = 3;

class FaultyTransport final : public Transport {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, std::shared_ptr<Shared> shared)
      : inner_(std::move(inner)), shared_(std::move(shared)) {}

  Status send_all(std::span<const Bytes> pieces, MonotonicTime deadline) override {
    if (is_dead_) return connection_lost();
    Buffer message;
    for (const Bytes piece : pieces) message.insert(message.end(), piece.begin(), piece.end());
    const std::size_t arrives = arriving(message.size());
    const Bytes part = Bytes(message).first(arrives);
    if (arrives > 0) QSFS_TRY(inner_->send_all(std::span(&part, 1), deadline));
    if (is_dead_) return connection_lost();
    return {};
  }

  Result<std::size_t> receive_some(MutableBytes out, MonotonicTime deadline) override {
    if (is_dead_) return connection_lost();
    TransportFaults& faults = shared_->faults;
    if (faults.receive_delay > Duration::zero()) {
      shared_->clock.advance(faults.receive_delay);
      if (shared_->clock.now() >= deadline) return fail(Errc::kTimeout, "no answer in time");
    }
    if (pending_.empty()) {
      pending_.resize(std::min(out.size(), faults.receive_max));
      QSFS_ASSIGN(const std::size_t got, inner_->receive_some(pending_, deadline));
      pending_.resize(got);
      const MutexLock lock(shared_->mu);
      if (faults.forge) faults.forge(pending_);
      if (std::exchange(faults.lose_next_reply, false)) is_dead_ = true;
      if (faults.cut_after_received) {
        if (*faults.cut_after_received < pending_.size()) {
          pending_.resize(*faults.cut_after_received);
          faults.cut_after_received.reset();
          is_dead_ = true;
          if (!pending_.empty()) {
            // What came before the cut is delivered; the next receive finds it.
            is_cut_ = true;
            is_dead_ = false;
          }
        } else {
          *faults.cut_after_received -= pending_.size();
        }
      }
    }
    if (is_dead_ || pending_.empty()) return connection_lost();
    const std::size_t len = std::min(out.size(), pending_.size());
    std::copy_n(pending_.begin(), len, out.begin());
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(len));
    if (is_cut_ && pending_.empty()) is_dead_ = true;
    return len;
  }

  bool is_quiet() override { return !is_dead_ && pending_.empty() && inner_->is_quiet(); }

 private:
  // How much of the message arrives; sets is_dead_ when not all.
  std::size_t arriving(std::size_t len) {
    const MutexLock lock(shared_->mu);
    TransportFaults& faults = shared_->faults;
    ++messages_;
    ++shared_->messages;
    if (faults.lose_every_nth_message > 0 && messages_ > kMessagesBeforeLoss &&
        shared_->messages % faults.lose_every_nth_message == 0) {
      is_dead_ = true;
      return len / 2;
    }
    if (!faults.cut_after_sent) return len;
    if (*faults.cut_after_sent >= len) {
      *faults.cut_after_sent -= len;
      return len;
    }
    is_dead_ = true;
    return std::exchange(faults.cut_after_sent, std::nullopt).value_or(0);
  }

  const std::unique_ptr<Transport> inner_;
  const std::shared_ptr<Shared> shared_;
  Buffer pending_;
  std::uint64_t messages_ = 0;
  bool is_cut_ = false;
  bool is_dead_ = false;
};

class FaultyDialer final : public Dialer {
 public:
  FaultyDialer(std::unique_ptr<Dialer> inner, TransportFaults& faults, sim::SimClock& clock)
      : inner_(std::move(inner)), shared_(new Shared{.faults = faults, .clock = clock}) {}

  Result<std::unique_ptr<Transport>> dial(const BackendAddress& address,
                                          MonotonicTime deadline) override {
    QSFS_ASSIGN(auto transport, inner_->dial(address, deadline));
    return std::make_unique<FaultyTransport>(std::move(transport), shared_);
  }

 private:
  const std::unique_ptr<Dialer> inner_;
  const std::shared_ptr<Shared> shared_;
};

}  // namespace

std::unique_ptr<Dialer> make_faulty_dialer(std::unique_ptr<Dialer> inner, TransportFaults& faults,
                                           sim::SimClock& clock) {
  return std::make_unique<FaultyDialer>(std::move(inner), faults, clock);
}

}  // namespace qsfs::zdb
