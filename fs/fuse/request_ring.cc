#include "fs/fuse/request_ring.h"

#include <linux/fuse.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#include "fs/fuse/channel.h"

namespace qsfs::fs {
namespace {

// Of include/uapi/linux/fuse.h, version 7.42, which the headers of Debian 12 do not have.
constexpr std::uint32_t kRegister = 1;
constexpr std::uint32_t kCommitAndFetch = 2;
constexpr std::size_t kSharedPartSize = 128;

struct EntryInOut {
  std::uint64_t flags;
  std::uint64_t commit_id;
  std::uint32_t payload_size;
  std::uint32_t padding;
  std::uint64_t reserved;
};
struct SharedHeader {
  std::byte in_out[kSharedPartSize];  // fuse_in_header of a request, fuse_out_header of an answer.
  std::byte operation[kSharedPartSize];  // The first argument of the request.
  EntryInOut entry;
};
struct RingCommand {
  std::uint64_t flags;
  std::uint64_t commit_id;
  std::uint16_t queue;
  std::uint8_t padding[6];
};
constexpr std::size_t kCommandRoom = 80;  // Of an entry of 128 bytes in the submission queue.
static_assert(sizeof(RingCommand) <= kCommandRoom);

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPayloadSize = 1 << 20;  // max_write, and what 256 pages hold.
// The shared header, and before the payload room for the request's own header and argument, so that
// all of a request can stand in one piece.
constexpr std::size_t kMemorySize = kPage + kPayloadSize;
static_assert(sizeof(SharedHeader) + sizeof(fuse_in_header) + kSharedPartSize <= kPage);
// The entry, and one to spare.
constexpr unsigned kRingEntries = 2;

thread_local RequestRing* serving = nullptr;

// The CPUs that this machine may ever have: the kernel wants a queue for each.
std::optional<unsigned> count_possible_cpus() {
  // "0-3", or "0-1,4-7".
  std::ifstream file("/sys/devices/system/cpu/possible");
  std::string text;
  if (!(file >> text)) return std::nullopt;
  const std::size_t at = text.find_last_of("-,");
  try {
    return static_cast<unsigned>(std::stoul(text.substr(at == std::string::npos ? 0 : at + 1))) + 1;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

}  // namespace

RequestRing* serving_ring() { return serving; }
void set_serving_ring(RequestRing* ring) { serving = ring; }

Result<std::unique_ptr<RequestRing>> RequestRing::open(int fuse_fd, unsigned queue) {
  auto ring = std::unique_ptr<RequestRing>(new RequestRing(fuse_fd, queue));
  QSFS_TRY(ring->set_up());
  return ring;
}

Status RequestRing::set_up() {
  io_uring_params params{};
  // With a flag that says when the kernel has something, instead of an interrupt of whoever looks.
  params.flags = IORING_SETUP_SQE128 | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  if (const int done = io_uring_queue_init_params(kRingEntries, &ring_, &params); done != 0) {
    return fail_errno(-done, "io_uring");
  }
  has_ring_ = true;
  void* const memory = ::mmap(nullptr, kMemorySize, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "memory of a ring entry");
  memory_ = static_cast<std::byte*>(memory);
  shared_[0] = {.iov_base = memory_, .iov_len = sizeof(SharedHeader)};
  shared_[1] = {.iov_base = memory_ + kPage, .iov_len = kPayloadSize};
  return {};
}

RequestRing::~RequestRing() {
  if (has_ring_) io_uring_queue_exit(&ring_);
  if (memory_ != nullptr) ::munmap(memory_, kMemorySize);
}

void RequestRing::prepare(std::uint32_t command) {
  // Never full: the one entry is at hand.
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
  io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fuse_fd_, nullptr, 0, 0);
  sqe->cmd_op = command;
  if (command == kRegister) {
    sqe->addr = reinterpret_cast<std::uint64_t>(shared_);
    sqe->len = 2;
  }
  const RingCommand body{.flags = 0,
                         .commit_id = commit_id_,
                         .queue = static_cast<std::uint16_t>(queue_),
                         .padding = {}};
  std::memset(sqe->cmd, 0, kCommandRoom);
  std::memcpy(sqe->cmd, &body, sizeof body);
}

void RequestRing::look() {
  const MonotonicTime end = system_clock().now() + kLookTime;
  while (io_uring_cq_ready(&ring_) == 0) {
    if ((__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0) {
      io_uring_get_events(&ring_);
    } else if (system_clock().now() >= end) {
      return;
    }
  }
}

int RequestRing::submit(std::atomic<bool>& someone_looks) {
  // Only one thread looks; more would take the CPU from those whose requests are awaited.
  if (someone_looks.exchange(true, std::memory_order_acquire)) {
    return io_uring_submit_and_wait(&ring_, 1);
  }
  const int done = io_uring_submit(&ring_);
  if (done >= 0) look();
  someone_looks.store(false, std::memory_order_release);
  return done;
}

std::optional<MutableBytes> RequestRing::next(std::atomic<bool>& someone_looks, bool may_look) {
  bool must_submit = false;
  if (!is_offered_) {
    is_offered_ = true;
    commit_id_ = 0;
    prepare(kRegister);
    must_submit = true;
  } else if (has_answer_) {
    has_answer_ = false;
    std::memcpy(memory_ + kPage, staged_.data(), staged_.size());
    staged_.clear();
    prepare(kCommitAndFetch);
    must_submit = true;
  }
  for (;;) {
    io_uring_cqe* cqe = nullptr;
    int done = 0;
    if (must_submit) {
      done = may_look ? submit(someone_looks) : io_uring_submit_and_wait(&ring_, 1);
      must_submit = done < 0 && io_uring_sq_ready(&ring_) > 0;
    }
    if (done >= 0) done = io_uring_wait_cqe(&ring_, &cqe);
    if (done == -EINTR || done == -EAGAIN) continue;
    if (done < 0) return std::nullopt;
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    if (result == 0) return assemble();
    if (result != -EINTR && result != -EAGAIN) return std::nullopt;
    // The command was not taken: once more.
    prepare(commit_id_ == 0 ? kRegister : kCommitAndFetch);
    must_submit = true;
  }
}

MutableBytes RequestRing::assemble() {
  SharedHeader shared;
  std::memcpy(&shared, memory_, sizeof shared);
  fuse_in_header header{};
  std::memcpy(&header, shared.in_out, sizeof header);
  commit_id_ = shared.entry.commit_id;
  arguments_size_ = std::min<std::size_t>(shared.entry.payload_size, kPayloadSize);
  const std::size_t outer = sizeof header + arguments_size_;
  const std::size_t operation =
      header.len > outer ? std::min<std::size_t>(header.len - outer, kSharedPartSize) : 0;
  std::byte* const payload = memory_ + kPage;
  std::memcpy(payload - operation, shared.operation, operation);
  std::byte* const start = payload - operation - sizeof header;
  std::memcpy(start, &header, sizeof header);
  unique_.store(header.unique, std::memory_order_release);
  return {start, sizeof header + operation + arguments_size_};
}

MutableBytes RequestRing::answer_space() {
  if (arguments_size_ != 0) return {};
  return {memory_ + kPage, kPayloadSize};
}

Status RequestRing::answer(const iovec* pieces, int count, bool is_serving_thread) {
  std::size_t len = 0;
  for (int i = 1; i < count; ++i) len += pieces[i].iov_len;
  if (len > kPayloadSize) {
    // Longer than the kernel ever asks for; without an answer its caller would hang.
    fuse_out_header refused{};
    std::memcpy(&refused, pieces[0].iov_base, sizeof refused);
    refused.error = -EIO;
    const iovec error{.iov_base = &refused, .iov_len = sizeof refused};
    QSFS_TRY(answer(&error, 1, is_serving_thread));
    return fail(Errc::kTooBig, "an answer of " + std::to_string(len) + " bytes to the kernel");
  }
  std::byte* to = memory_ + kPage;
  // Whoever handles the request may still look at its arguments.
  const bool must_stage = is_serving_thread && arguments_size_ != 0;
  if (must_stage) {
    staged_.resize(len);
    to = staged_.data();
  }
  std::size_t at = 0;
  for (int i = 1; i < count; ++i) {
    if (pieces[i].iov_base != to + at) std::memcpy(to + at, pieces[i].iov_base, pieces[i].iov_len);
    at += pieces[i].iov_len;
  }
  std::memcpy(memory_, pieces[0].iov_base, pieces[0].iov_len);
  EntryInOut entry{};
  entry.commit_id = commit_id_;
  entry.payload_size = static_cast<std::uint32_t>(len);
  std::memcpy(memory_ + offsetof(SharedHeader, entry), &entry, sizeof entry);
  has_answer_ = true;
  if (is_serving_thread) {
    unique_.store(0, std::memory_order_release);
    return {};
  }
  {
    MutexLock lock(mu_);
    unique_.store(0, std::memory_order_release);
  }
  answered_.notify_all();
  return {};
}

void RequestRing::wait_for_answer() {
  MutexLock lock(mu_);
  while (!is_answered()) answered_.wait(mu_);
}

CpuAffinity::CpuAffinity(unsigned cpu) {
  can_pin_ = ::sched_getaffinity(0, sizeof all_, &all_) == 0 && CPU_ISSET(cpu, &all_);
  CPU_ZERO(&own_);
  CPU_SET(cpu, &own_);
}

void CpuAffinity::note(std::uint32_t opcode) {
  if (!can_pin_ || opcode == FUSE_FSYNC || opcode == FUSE_FSYNCDIR) return;
  const bool is_content = opcode == FUSE_READ || opcode == FUSE_WRITE;
  if (is_content != is_pinned_) {
    others_ = 0;
    return;
  }
  if (++others_ < kPatience) return;
  others_ = 0;
  // Where that is not allowed, the scheduler chooses as ever.
  if (::sched_setaffinity(0, sizeof all_, is_pinned_ ? &all_ : &own_) == 0) {
    is_pinned_ = !is_pinned_;
  } else {
    can_pin_ = false;
  }
}

bool RequestRings::is_enabled() {
  std::ifstream file("/sys/module/fuse/parameters/enable_uring");
  std::string value;
  return file >> value && value == "Y";
}

Result<std::unique_ptr<RequestRings>> RequestRings::open(int fuse_fd,
                                                         std::size_t threads_per_queue) {
  const auto queues = count_possible_cpus();
  if (!queues || *queues > kQueuesMax) {
    return fail(Errc::kUnsupported,
                "io_uring for FUSE: only with " + std::to_string(kQueuesMax) + " CPUs at most");
  }
  auto rings = std::unique_ptr<RequestRings>(new RequestRings(fuse_fd, threads_per_queue));
  MutexLock lock(rings->mu_);
  rings->queues_.resize(*queues);
  for (unsigned queue = 0; queue < *queues; ++queue) {
    for (std::size_t i = 0; i < threads_per_queue; ++i) QSFS_TRY(rings->add(queue));
  }
  return rings;
}

Status RequestRings::add(unsigned queue) {
  QSFS_ASSIGN(auto ring, RequestRing::open(fuse_fd_, queue));
  rings_.push_back(std::move(ring));
  ++queues_[queue].rings;
  return {};
}

std::vector<RequestRing*> RequestRings::rings() {
  MutexLock lock(mu_);
  std::vector<RequestRing*> all;
  for (const auto& ring : rings_) all.push_back(ring.get());
  return all;
}

Result<RequestRing*> RequestRings::wait_begins(unsigned queue) {
  MutexLock lock(mu_);
  Queue& of = queues_[queue];
  ++of.waiting;
  if (of.rings - of.waiting >= threads_per_queue_) return nullptr;
  QSFS_TRY(add(queue));
  return rings_.back().get();
}

void RequestRings::wait_ends(unsigned queue) {
  MutexLock lock(mu_);
  --queues_[queue].waiting;
}

void RequestRings::decide(bool serve) {
  {
    MutexLock lock(mu_);
    if (!decision_) decision_ = serve;
  }
  decided_.notify_all();
}

bool RequestRings::wait_for_decision() {
  MutexLock lock(mu_);
  while (!decision_) decided_.wait(mu_);
  return *decision_;
}

RequestRing* RequestRings::find(std::uint64_t unique) {
  MutexLock lock(mu_);
  for (const auto& ring : rings_) {
    if (ring->unique() == unique) return ring.get();
  }
  return nullptr;
}

}  // namespace qsfs::fs
