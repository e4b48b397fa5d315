#pragma once
// Answers that are done in any order and told in one.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/index.h"

namespace kogia::cli {

/// Places for answers, numbered from 0 ("slots"), each a line.
class Answers {
 public:
  virtual ~Answers() = default;
  /// An answer that is there already, from this run or one before.
  virtual bool has(Index slot) const = 0;
  /// The first slot that has none: all before it are told.
  virtual Index first_missing() const = 0;
  virtual Index n_there() const = 0;
  /// `line` without its end. Each slot once.
  virtual void put(Index slot, const std::string& line) = 0;
  /// All slots have their answers, and they are to stay.
  virtual void finish() = 0;
};

/// Each as soon as all before it are there.
std::unique_ptr<Answers> answers_to_stdout(Index n_slots);

/// A file that grows in order of the slots and can be gone on with after a stop at any byte. What
/// is done before its turn waits in FILE.ahead, a line "SLOT ANSWER" each, so that it survives too;
/// that file goes when nothing waits.
///
/// `head(slot)` is how the line of that slot begins: it names the request, its settings and the
/// model by a hash. What is in the file already stays as far as its lines begin as they should; an
/// unfinished last line is cut off. Nothing is changed, and Error (usage) thrown, where the file
/// holds anything else, or more lines than slots, or where another process writes it.
std::unique_ptr<Answers> open_answer_file(const std::filesystem::path& file, Index n_slots,
                                          std::function<std::string(Index slot)> head);

}  // namespace kogia::cli
