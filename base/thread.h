// Threads with names. Every thread of QSFS is started here, so that `ps -L` and a debugger show
// what each is for.
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <thread>

namespace qsfs {

inline constexpr std::size_t kThreadNameLenMax = 15;

// Starts `body` on a thread called `name` (at most 15 characters). The returned jthread asks the
// stop token to stop and joins when destroyed. All signals are blocked in it: only the main thread
// handles them.
std::jthread start_thread(std::string name, std::function<void(std::stop_token)> body);

}  // namespace qsfs
