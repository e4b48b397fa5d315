#include "cli/answer_printer.h"

#include <cstdio>

#include <fmt/format.h>

#include "cli/draft_report.h"

namespace kogia::cli {
namespace {

constexpr std::string_view kDim = "\x1b[2m", kPlain = "\x1b[0m";

double per_second(Index n, double seconds) {
  return seconds > 0 ? static_cast<double>(n) / seconds : 0;
}

}  // namespace

AnswerPrinter::~AnswerPrinter() {
  if (part_ != Part::kReasoning) return;
  std::fputs(kPlain.data(), stdout);
  std::fflush(stdout);
}

void AnswerPrinter::enter(Part part) {
  if (part == part_) return;
  std::string text;
  if (part_ == Part::kReasoning) {
    text += kPlain;
    if (part == Part::kContent) text += "\n\n";
  }
  if (part == Part::kReasoning) text += kDim;
  part_ = part;
  write_out(text);
}

void AnswerPrinter::print(const GeneratedPiece& piece) {
  if (terminal_ && !piece.reasoning.empty()) {
    enter(Part::kReasoning);
    write_out(printable(piece.reasoning));
    at_line_begin_ = false;
  }
  if (piece.content.empty()) return;
  enter(Part::kContent);
  write_out(terminal_ ? printable(piece.content) : piece.content);
  at_line_begin_ = piece.content.back() == '\n';
}

void AnswerPrinter::finish() {
  enter(Part::kNone);
  if (!at_line_begin_) write_out("\n");
  at_line_begin_ = true;
}

void PrefillProgress::operator()(Index done, Index total) {
  if (quiet_ || done >= total) return bar_.reset();
  if (!bar_) bar_.emplace("reading", total);
  bar_->add(done - bar_->done());
}

std::string speed_line(const Generation& g) {
  const auto n = static_cast<Index>(g.ids.size());
  std::string line = fmt::format("{}, {:.1f} tok/s; prompt {} ({} new), {:.1f} tok/s",
                                 counted(n, "token"), per_second(n, g.decode_s), g.n_prompt,
                                 g.n_prompt_computed, per_second(g.n_prompt_computed, g.prefill_s));
  if (const std::string drafts = draft_line(g.drafts, n); !drafts.empty()) line += "; " + drafts;
  if (g.finish_reason == FinishReason::kInterrupted) line += "; stopped";
  return line;
}

}  // namespace kogia::cli
