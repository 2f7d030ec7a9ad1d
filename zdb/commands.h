// The commands of the protocol and what the dispatcher checks before each one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "zdb/session.h"

namespace qsfs::zdb {

// What a command touches, so that the dispatcher can refuse it.
enum class CommandScope {
  kServer,  // Nothing of the selected namespace.
  kRead,    // Refused where the client may not read, and while the namespace is frozen.
  kWrite,   // Also where it may not write, and while the namespace is locked.
};

struct Command {
  std::string_view name;  // Upper case.
  void (*run)(Session&, Arguments, ReplyWriter&) = nullptr;
  CommandScope scope = CommandScope::kServer;
  bool admin_only = false;
  // May take as long as a disk does with many files: does not run on the thread of its client.
  bool is_slow = false;
  bool empty_arguments_allowed = false;
  std::size_t arguments_min = 1;  // The name included.
  std::size_t arguments_max = 1;
};

// Null when there is no command of that name; case does not matter.
const Command* find_command(std::string_view name);

inline constexpr std::string_view kNamespaceGone =
    "Your active namespace is not available anymore (probably removed).";
inline constexpr std::string_view kPermissionDenied = "Permission denied";
inline constexpr std::string_view kInvalidArgument = "Invalid argument";

bool equals_ignoring_case(std::string_view text, std::string_view upper_case);
std::string_view argument_text(Arguments arguments, std::size_t index);

// commands_data.cc
// Several SETs, on a namespace that may be written.
void run_sets(Session&, std::span<const SetQueue::Item>, ReplyWriter&);
void run_set(Session&, Arguments, ReplyWriter&);
void run_get(Session&, Arguments, ReplyWriter&);
void run_mget(Session&, Arguments, ReplyWriter&);
void run_del(Session&, Arguments, ReplyWriter&);
void run_exists(Session&, Arguments, ReplyWriter&);
void run_length(Session&, Arguments, ReplyWriter&);
void run_check(Session&, Arguments, ReplyWriter&);
void run_scan(Session&, Arguments, ReplyWriter&);
void run_dbsize(Session&, Arguments, ReplyWriter&);

void run_rscan(Session&, Arguments, ReplyWriter&);

// commands_history.cc
void run_keytime(Session&, Arguments, ReplyWriter&);
void run_keycur(Session&, Arguments, ReplyWriter&);
void run_history(Session&, Arguments, ReplyWriter&);
void run_wait(Session&, Arguments, ReplyWriter&);
void run_nsjump(Session&, Arguments, ReplyWriter&);
void run_flush(Session&, Arguments, ReplyWriter&);
void run_reload(Session&, Arguments, ReplyWriter&);
void run_index(Session&, Arguments, ReplyWriter&);
void run_data(Session&, Arguments, ReplyWriter&);

// commands_namespace.cc
void run_select(Session&, Arguments, ReplyWriter&);
void run_nsnew(Session&, Arguments, ReplyWriter&);
void run_nsdel(Session&, Arguments, ReplyWriter&);
void run_nslist(Session&, Arguments, ReplyWriter&);
void run_nsinfo(Session&, Arguments, ReplyWriter&);
void run_nsset(Session&, Arguments, ReplyWriter&);

// commands_system.cc
void run_ping(Session&, Arguments, ReplyWriter&);
void run_time(Session&, Arguments, ReplyWriter&);
void run_auth(Session&, Arguments, ReplyWriter&);
void run_info(Session&, Arguments, ReplyWriter&);
void run_hooks(Session&, Arguments, ReplyWriter&);

}  // namespace qsfs::zdb
