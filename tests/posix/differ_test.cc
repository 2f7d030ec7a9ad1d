// The same random system calls on a mount and on the local disk (what the kernel does there is the
// truth): every result, and the trees at the end, are equal; and the mount says the same after a
// remount, when nothing is left in the kernel.
//
//   QSFS_POSIX_SEQUENCES=N   how many (default kSequences, or as many as kTimeMax allows)
//   QSFS_POSIX_SEED=N        the first seed; with QSFS_POSIX_SEQUENCES=1 that one alone
//   QSFS_POSIX_REPLAY=FILE   runs the lines of a file, as a failure prints them
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "tests/posix/mounted_volume.h"
#include "tests/posix/side.h"

namespace qsfs::posix {
namespace {

constexpr std::uint64_t kSequences = 2000;
constexpr int kOperationsPerSequence = 40;
constexpr std::uint64_t kSequencesPerMount = 500;
constexpr int kFailuresMax = 5;
constexpr std::chrono::seconds kTimeMax{30};

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Times of the kernel are those of its last tick.
void wait_for_tick() {
  timespec first{};
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &first);
  do {
    ::sched_yield();
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  } while (now.tv_nsec == first.tv_nsec && now.tv_sec == first.tv_sec);
}

struct Pair {
  std::string mount;
  std::string local;
};

Pair fresh_pair() {
  static int number = 0;
  const std::string name = "/s" + std::to_string(++number);
  Pair made{.mount = shared_volume().root() + name, .local = shared_volume().local() + name};
  for (const std::string& directory : {made.mount, made.local}) {
    QSFS_CHECK(::mkdir(directory.c_str(), 0777) == 0);
    QSFS_CHECK(::chmod(directory.c_str(), 0777) == 0);
  }
  return made;
}

struct Difference {
  std::size_t at = 0;  // Index of the operation; their number when the trees differ.
  std::string text;
};

std::string first_other_line(const std::string& one, const std::string& other) {
  std::istringstream left(one);
  std::istringstream right(other);
  std::string a;
  std::string b;
  do {
    a.clear();
    b.clear();
    std::getline(left, a);
    std::getline(right, b);
  } while (a == b && (left || right));
  return "  " + a + "\n  " + b;
}

std::optional<Difference> run(const std::vector<Operation>& operations, const Pair& where) {
  ::umask(022);
  Side mount(where.mount);
  Side local(where.local);
  for (std::size_t i = 0; i < operations.size(); ++i) {
    const Operation& operation = operations[i];
    if (operation.timed) {
      mount.remember(operation);
      local.remember(operation);
      wait_for_tick();
    }
    Outcome got = mount.apply(operation);
    Outcome want = local.apply(operation);
    if (operation.timed) {
      got.data += mount.changed_times(operation);
      want.data += local.changed_times(operation);
    }
    if (got != want) {
      return Difference{i, "  mount: " + to_text(got) + "\n  local: " + to_text(want)};
    }
  }
  const std::string got = mount.tree(/*everything=*/false);
  const std::string want = local.tree(/*everything=*/false);
  if (got == want) return std::nullopt;
  return Difference{operations.size(), "the trees, on the mount and on the local disk:\n" +
                                           first_other_line(got, want)};
}

// Delta debugging: leaves out runs of operations, long ones first, for as long as a difference
// stays.
std::vector<Operation> shrink(std::vector<Operation> operations) {
  for (std::size_t length = operations.size() / 2; length >= 1;) {
    bool shorter = false;
    for (std::size_t at = 0; at < operations.size();) {
      std::vector<Operation> fewer = operations;
      const auto begin = fewer.begin() + static_cast<std::ptrdiff_t>(at);
      const auto end =
          fewer.begin() + static_cast<std::ptrdiff_t>(std::min(at + length, fewer.size()));
      fewer.erase(begin, end);
      if (run(fewer, fresh_pair())) {
        operations = std::move(fewer);
        shorter = true;
      } else {
        at += length;
      }
    }
    if (!shorter || length > 1) length /= 2;
  }
  return operations;
}

std::string script_of(const std::vector<Operation>& operations) {
  std::string text;
  for (const Operation& operation : operations) text += to_line(operation) + "\n";
  return text;
}

void report(std::vector<Operation> operations, const Difference& first) {
  if (first.at < operations.size()) operations.resize(first.at + 1);
  operations = shrink(std::move(operations));
  const std::optional<Difference> again = run(operations, fresh_pair());
  ADD_FAILURE() << (again ? again->text : first.text + "\n  (not again)")
                << "\nafter (QSFS_POSIX_REPLAY runs these lines):\n"
                << script_of(operations);
}

std::vector<Operation> random_operations(std::uint64_t seed) {
  Rng rng(seed);
  std::vector<Operation> operations;
  for (int i = 0; i < kOperationsPerSequence; ++i) operations.push_back(random_operation(rng));
  return operations;
}

class DifferTest : public testing::Test {
 protected:
  void SetUp() override { ::signal(SIGPIPE, SIG_IGN); }
};

TEST_F(DifferTest, RandomSystemCallsDoWhatTheyDoOnTheLocalDisk) {
  const std::uint64_t first = number_from_environment("QSFS_POSIX_SEED", 1);
  const std::uint64_t count = number_from_environment("QSFS_POSIX_SEQUENCES", kSequences);
  const bool is_bounded = std::getenv("QSFS_POSIX_SEQUENCES") == nullptr;
  const auto end = std::chrono::steady_clock::now() + kTimeMax;
  int failures = 0;
  std::vector<std::pair<std::uint64_t, Pair>> done;
  const auto remount_and_compare = [&done] {
    // The kernel's times of files are written back with their inodes.
    shared_volume().write_back();
    std::vector<std::string> before;
    for (const auto& [seed, where] : done) before.push_back(Side(where.mount).tree(true));
    shared_volume().unmount();
    shared_volume().mount();
    for (std::size_t i = 0; i < done.size(); ++i) {
      const std::string after = Side(done[i].second.mount).tree(true);
      EXPECT_EQ(before[i], after) << "seed " << done[i].first
                                  << " is another tree after a remount:\n"
                                  << first_other_line(before[i], after);
      std::filesystem::remove_all(done[i].second.mount);
      std::filesystem::remove_all(done[i].second.local);
      if (testing::Test::HasFailure()) break;
    }
    done.clear();
  };
  for (std::uint64_t seed = first; seed < first + count && failures < kFailuresMax; ++seed) {
    if (is_bounded && std::chrono::steady_clock::now() > end) {
      std::printf("a slow machine: %llu sequences instead of %llu\n",
                  static_cast<unsigned long long>(seed - first),
                  static_cast<unsigned long long>(count));
      break;
    }
    const std::vector<Operation> operations = random_operations(seed);
    const Pair where = fresh_pair();
    if (const std::optional<Difference> found = run(operations, where)) {
      ++failures;
      SCOPED_TRACE("seed " + std::to_string(seed));
      report(operations, *found);
      continue;
    }
    done.emplace_back(seed, where);
    if (done.size() == kSequencesPerMount) remount_and_compare();
  }
  remount_and_compare();
}

TEST_F(DifferTest, LinesOfAnOperationAreReadBackAsWritten) {
  Rng rng(1);
  for (int i = 0; i < 1000; ++i) {
    const Operation operation = random_operation(rng);
    Operation back;
    ASSERT_TRUE(parse_line(to_line(operation), back)) << to_line(operation);
    EXPECT_EQ(operation, back) << to_line(operation);
  }
}

TEST_F(DifferTest, AReplayedScriptDoesWhatItDoesOnTheLocalDisk) {
  const char* script = std::getenv("QSFS_POSIX_REPLAY");
  if (script == nullptr) GTEST_SKIP() << "no QSFS_POSIX_REPLAY: nothing to replay";
  std::ifstream file(script);
  std::vector<Operation> operations;
  for (std::string line; std::getline(file, line);) {
    Operation operation;
    if (parse_line(line, operation)) operations.push_back(operation);
  }
  const std::optional<Difference> found = run(operations, fresh_pair());
  EXPECT_FALSE(found) << "operation " << found->at << ":\n" << found->text;
}

}  // namespace
}  // namespace qsfs::posix
