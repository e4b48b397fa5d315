#include "cli/batch_flags.h"

#include "infer/drafter.h"

namespace kogia::cli {

std::vector<OptionRow> BatchFlags::rows() {
  return {
      {.flags = "--speculate",
       .value = "HOW",
       .help = "lookup: guess that what followed the same words before follows again, several "
               "tokens a step, as far as measured time says that it pays; the answer is the same "
               "(none)",
       .target = &speculate,
       .choices = {"none", "lookup"}},
  };
}

std::vector<OptionRow> BatchFlags::many_rows() {
  return {
      {.flags = "--max-sequences",
       .value = "N",
       .help = "answers that are written at once, at most (256)",
       .target = &max_sequences,
       .low = 1,
       .high = 65536},
      {.flags = "--step-tokens",
       .value = "N",
       .help = "tokens of all prompts and answers in one step, at most; 0: as --chunk (0)",
       .target = &step_tokens,
       .low = 0,
       .high = 1 << 20},
  };
}

BatcherOptions BatchFlags::options() const {
  BatcherOptions options{.step_tokens = step_tokens, .max_sequences = max_sequences};
  if (speculate == "lookup") {
    options.make_drafter = [experience = make_draft_experience()](const Request&) {
      return make_prompt_lookup(experience);
    };
  }
  return options;
}

}  // namespace kogia::cli
