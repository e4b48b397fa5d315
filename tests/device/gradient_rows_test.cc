// The gradients of operations on rows, the loss and the optimizer's step: every instruction set
// against the definitions in f64, and bits whatever the number of threads.

#include <cmath>
#include <functional>

#include "device/device_testing.h"
#include "device/reference/gradients.h"
#include "tensor/convert.h"

namespace kogia::testing {
namespace {

using Reals = std::vector<double>;
constexpr Index kSizes[] = {1, 7, 63, 64, 65, 1000};

double f64(float x) { return static_cast<double>(x); }
Reals reals(const std::vector<float>& x) { return {x.begin(), x.end()}; }
std::vector<float> floats(const Reals& x) {
  std::vector<float> out;
  for (const double v : x) out.push_back(static_cast<float>(v));
  return out;
}

/// run(device) gives numbers: the same bits for 1, 2 and 3 threads on each instruction set.
void expect_threads_do_not_matter(const std::function<std::vector<float>(Device&)>& run) {
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    std::vector<float> once;
    for (const int n_threads : {1, 2, 3}) {
      const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
      const std::vector<float> out = run(*device);
      if (n_threads == 1) once = out;
      EXPECT_TRUE(same_bits(out, once)) << n_threads << " threads";
    }
  }
}

std::vector<float> joined(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> all = a;
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

// ---------------------------------------------------------------------------------------------------

struct RmsCase {
  RmsCase(Index rows, Index n)
      : rows(rows),
        n(n),
        x(random_floats(rows * n, 1)),
        w(random_floats(n, 2)),
        dy(random_floats(rows * n, 3)),
        dx(random_floats(rows * n, 4)),
        dw(random_floats(n, 5)) {}
  RmsNormVjpArgs args(std::span<const TokenBlock> blocks, bool weight = true) {
    return {.x = x.data(),
            .x_stride = n,
            .weight = w.data(),
            .dy = dy.data(),
            .dy_stride = n,
            .dx = dx.data(),
            .dx_stride = n,
            .rows = rows,
            .n = n,
            .eps = 1e-6F,
            .blocks = blocks,
            .dweight = weight ? dw.data() : nullptr};
  }
  Index rows, n;
  std::vector<float> x, w, dy, dx, dw;
};

TEST(RmsNormVjp, EveryInstructionSetMatchesTheDefinition) {
  for (const Index n : kSizes) {
    SCOPED_TRACE(::testing::Message() << "n=" << n);
    const Index rows = 200;
    // A gap before the last block: those rows' dx is made and dweight does not see them.
    const std::vector<TokenBlock> blocks = {{0, 128}, {128, 0}, {128, 30}, {160, 40}};
    const RmsCase start(rows, n);
    const Reals x = reals(start.x), w = reals(start.w), dy = reals(start.dy);
    Reals dx = reals(start.dx), dw = reals(start.dw), ignored(w.size(), 0);
    for (Index r = 0; r < rows; ++r) {
      const bool in_block = r < 158 || r >= 160;
      reference::rms_norm_vjp(x.data() + r * n, w.data(), dy.data() + r * n, n, f64(1e-6F),
                              dx.data() + r * n, in_block ? dw.data() : ignored.data());
    }
    for_each_cpu_target([&](Device& device) {
      RmsCase c = start;
      device.rms_norm_vjp(c.args(blocks));
      // n = 1: g cancels against its mean.
      expect_near(c.dx, floats(dx), {.abs = n == 1 ? 1e-4 : 2e-6, .rel = 4e-6});
      expect_near(c.dw, floats(dw), {.abs = 2e-5, .rel = 4e-6});
    });
  }
}

TEST(RmsNormVjp, InPlaceWithoutTheWeightAndForNoRows) {
  for_each_cpu_target([](Device& device) {
    RmsCase added(50, 65), in_place = added;
    added.dx.assign(added.dx.size(), 0);
    const std::vector<TokenBlock> blocks = {{0, 50}};
    device.rms_norm_vjp(added.args(blocks));
    RmsNormVjpArgs args = in_place.args({}, /*weight=*/false);
    args.dx = in_place.dy.data();
    args.accumulate = false;
    device.rms_norm_vjp(args);
    EXPECT_TRUE(same_bits(added.dx, in_place.dy));

    RmsCase none(0, 65);
    const std::vector<float> before = none.dw;
    device.rms_norm_vjp(none.args({}));
    EXPECT_TRUE(same_bits(none.dw, before));
  });
}

TEST(RmsNormVjp, BitsDependOnTheBlocksAlone) {
  const std::vector<TokenBlock> blocks = {{0, 128}, {128, 100}, {228, 72}};
  const RmsCase start(300, 65);
  expect_threads_do_not_matter([&](Device& device) {
    RmsCase whole = start, parts = start;
    device.rms_norm_vjp(whole.args(blocks));
    // The last block in a call of its own.
    RmsNormVjpArgs a = parts.args(std::span(blocks).first(2)), b = a;
    a.rows = 228;
    b.x += 228 * 65, b.dy += 228 * 65, b.dx += 228 * 65;
    b.rows = 72;
    const TokenBlock last = {0, 72};
    b.blocks = {&last, 1};
    device.rms_norm_vjp(a);
    device.rms_norm_vjp(b);
    EXPECT_TRUE(same_bits(whole.dx, parts.dx));
    EXPECT_TRUE(same_bits(whole.dw, parts.dw));
    return joined(whole.dx, whole.dw);
  });
}

// ---------------------------------------------------------------------------------------------------

TEST(SiluMulVjp, EveryInstructionSetMatchesTheDefinition) {
  for (const Index n : kSizes) {
    SCOPED_TRACE(::testing::Message() << "n=" << n);
    const Index rows = 40, stride = n + 2;
    auto gate = random_floats(rows * stride, 1, /*scale=*/4);
    gate[0] = -100, gate[static_cast<std::size_t>(stride)] = 100;  // σ is 0 and 1
    const auto up = random_floats(rows * stride, 2), dh = random_floats(rows * stride, 3);
    const auto dup = random_floats(rows * stride, 5);
    // dgate takes the place of dh; between the rows nothing changes.
    Reals more_gate = reals(dh), more_up = reals(dup);
    for (Index r = 0; r < rows; ++r) {
      std::fill_n(more_gate.begin() + r * stride, n, 0.0);
    }
    const Reals g = reals(gate), u = reals(up), h = reals(dh);
    for (Index r = 0; r < rows; ++r) {
      const Index at = r * stride;
      reference::silu_mul_vjp(g.data() + at, u.data() + at, h.data() + at, n, more_gate.data() + at,
                              more_up.data() + at);
    }
    const auto run = [&](Device& device) {
      auto got_gate = dh, got_up = dup;
      device.silu_mul_vjp({.gate = gate.data(),
                           .up = up.data(),
                           .dh = got_gate.data(),
                           .dgate = got_gate.data(),
                           .dup = got_up.data(),
                           .rows = rows,
                           .n = n,
                           .gate_stride = stride,
                           .up_stride = stride,
                           .dh_stride = stride,
                           .dgate_stride = stride,
                           .dup_stride = stride});
      return joined(got_gate, got_up);
    };
    for_each_cpu_target([&](Device& device) {
      expect_near(run(device), joined(floats(more_gate), floats(more_up)),
                  {.abs = 2e-6, .rel = 2e-6});
    });
    expect_threads_do_not_matter(run);
  }
}

TEST(CombineVjp, EveryInstructionSetMatchesTheDefinition) {
  for (const Index n : kSizes) {
    SCOPED_TRACE(::testing::Message() << "n=" << n);
    const Index rows = 33, top_k = 3;
    std::vector<std::int32_t> row_of(static_cast<std::size_t>(rows * top_k));
    for (std::size_t i = 0; i < row_of.size(); ++i) {
      row_of[i] = static_cast<std::int32_t>(i * 7 % row_of.size());
    }
    const auto w = random_floats(rows * top_k, 2), dy = random_floats(rows * n, 3),
               de = random_floats(rows * top_k * n, 4);
    Reals expected = reals(de);
    reference::combine_vjp(std::span<const std::int32_t>(row_of), reals(w).data(), reals(dy).data(),
                           top_k, n, expected.data());
    const auto run = [&](Device& device) {
      auto got = de;
      device.combine_vjp({.row_of = row_of,
                          .weights = w.data(),
                          .rows = rows,
                          .top_k = top_k,
                          .n = n,
                          .dy = dy.data(),
                          .dy_stride = n,
                          .dexpert_rows = got.data(),
                          .expert_stride = n});
      return got;
    };
    for_each_cpu_target([&](Device& device) {
      expect_near(run(device), floats(expected), {.abs = 3e-5, .rel = 2e-6});
    });
    expect_threads_do_not_matter(run);
  }
}

TEST(EmbedVjp, AddsInOrderOfTheRows) {
  const Index rows = 500;
  for (const Index n : kSizes) {
    std::vector<std::int32_t> ids;
    for (Index r = 0; r < rows; ++r) ids.push_back(static_cast<std::int32_t>(r * r % 23));
    const auto dy = random_floats(rows * n, 1), table = random_floats(23 * n, 2);
    std::vector<float> expected = table;
    reference::embed_vjp(std::span<const std::int32_t>(ids), dy.data(), n, expected.data());
    const auto run = [&](Device& device) {
      std::vector<float> got = table;
      device.embed_vjp(
          {.ids = ids, .dy = dy.data(), .dy_stride = n, .cols = n, .dtable = got.data()});
      return got;
    };
    for_each_cpu_target([&](Device& device) { EXPECT_TRUE(same_bits(run(device), expected)); });
    expect_threads_do_not_matter(run);
  }
}

TEST(Add, AddsRows) {
  for (const Index n : kSizes) {
    const Index rows = 40, stride = n + 1;
    const auto x = random_floats(rows * n, 1), y = random_floats(rows * stride, 2);
    std::vector<float> expected = y;
    for (Index r = 0; r < rows; ++r) {
      for (Index i = 0; i < n; ++i) {
        expected[static_cast<std::size_t>(r * stride + i)] +=
            x[static_cast<std::size_t>(r * n + i)];
      }
    }
    for_each_cpu_target([&](Device& device) {
      std::vector<float> got = y;
      device.add({.x = x.data(),
                  .x_stride = n,
                  .y = got.data(),
                  .y_stride = stride,
                  .rows = rows,
                  .n = n});
      EXPECT_TRUE(same_bits(got, expected));
    });
  }
}

// ---------------------------------------------------------------------------------------------------

TEST(RouteVjp, EveryInstructionSetMatchesTheDefinition) {
  const Index rows = 30, n_experts = 9, top_k = 3;
  std::vector<std::int32_t> experts;
  for (Index t = 0; t < rows; ++t) {
    for (Index k = 0; k < top_k; ++k) {
      experts.push_back(static_cast<std::int32_t>((t * 5 + k * 2) % n_experts));
    }
  }
  const auto z = random_floats(rows * n_experts, 1), dw = random_floats(rows * top_k, 2),
             start = random_floats(rows * n_experts, 3);
  for (const RouterScore score : {RouterScore::kSigmoid, RouterScore::kSoftmax}) {
    for (const bool normalise : {false, true}) {
      const reference::RouterForm form = {.score = score, .normalise = normalise, .scale = 2.5};
      Reals expected = reals(start);
      for (Index t = 0; t < rows; ++t) {
        reference::route_weights_vjp(
            reals(z).data() + t * n_experts, n_experts,
            std::span<const std::int32_t>(experts).subspan(static_cast<std::size_t>(t * top_k), 3),
            form, reals(dw).data() + t * top_k, expected.data() + t * n_experts);
      }
      const auto run = [&](Device& device) {
        std::vector<float> got = start;
        device.route_vjp({.logits = z.data(),
                          .experts = experts.data(),
                          .rows = rows,
                          .n_experts = n_experts,
                          .top_k = top_k,
                          .score = score,
                          .normalise = normalise,
                          .scale = 2.5F,
                          .dweights = dw.data(),
                          .dlogits = got.data()});
        return got;
      };
      for_each_cpu_target([&](Device& device) {
        expect_near(run(device), floats(expected), {.abs = 1e-6, .rel = 1e-6});
      });
      expect_threads_do_not_matter(run);
    }
  }
}

// The chosen experts are found here by counting how many beat each.
std::vector<std::int32_t> best_experts(const float* z, Index n_experts, Index top_k) {
  std::vector<std::int32_t> best;
  for (Index e = 0; e < n_experts; ++e) {
    Index better = 0;
    for (Index j = 0; j < n_experts; ++j) better += z[j] > z[e] || (z[j] == z[e] && j < e);
    if (better < top_k) best.push_back(static_cast<std::int32_t>(e));
  }
  return best;
}

TEST(BalanceLoss, EveryInstructionSetMatchesTheDefinition) {
  const Index rows = 60, n_experts = 7, top_k = 2;
  auto z = random_floats(rows * n_experts, 1);
  for (Index e = 0; e < n_experts; ++e) z[static_cast<std::size_t>(5 * n_experts + e)] = 1;  // ties
  const auto start = random_floats(rows * n_experts, 2);
  const std::vector<SequenceRows> sequences = {{.row_begin = 3, .n_rows = 40},
                                               {.row_begin = 43, .n_rows = 0},
                                               {.row_begin = 43, .n_rows = 1},
                                               {.row_begin = 50, .n_rows = 10}};
  for (const RouterScore score : {RouterScore::kSigmoid, RouterScore::kSoftmax}) {
    Reals expected = reals(start), losses;
    for (const SequenceRows& seq : sequences) {
      const Index at = seq.row_begin * n_experts;
      std::vector<std::int32_t> experts;
      for (Index t = 0; t < seq.n_rows; ++t) {
        for (const std::int32_t e : best_experts(z.data() + at + t * n_experts, n_experts, top_k)) {
          experts.push_back(e);
        }
      }
      const Reals logits = reals(z);
      losses.push_back(reference::balance_loss(logits.data() + at,
                                               std::span<const std::int32_t>(experts), n_experts,
                                               top_k, score, f64(0.1F)));
      reference::balance_loss_vjp(logits.data() + at, std::span<const std::int32_t>(experts),
                                  n_experts, top_k, score, f64(0.1F), 3.0, expected.data() + at);
    }
    const auto run = [&](Device& device) {
      std::vector<float> got = start, loss(sequences.size(), -1), alone = loss;
      const std::vector<float> dloss(sequences.size(), 3);
      BalanceLossArgs args = {.logits = z.data(),
                              .n_experts = n_experts,
                              .top_k = top_k,
                              .score = score,
                              .sequences = sequences,
                              .alpha = 0.1F,
                              .dloss = dloss.data(),
                              .loss = loss.data(),
                              .dlogits = got.data()};
      device.balance_loss(args);
      args.dlogits = nullptr;
      args.loss = alone.data();
      device.balance_loss(args);
      EXPECT_TRUE(same_bits(loss, alone));
      return joined(got, loss);
    };
    for_each_cpu_target([&](Device& device) {
      expect_near(run(device), joined(floats(expected), floats(losses)),
                  {.abs = 1e-7, .rel = 1e-6});
    });
    expect_threads_do_not_matter(run);
  }
}

// ---------------------------------------------------------------------------------------------------

TEST(CrossEntropy, IsTheSoftmaxLessTheTargetWithTheBitsOfLogProb) {
  for (const Index n : {Index{1}, Index{7}, Index{63}, Index{65}, Index{1000}, Index{20000}}) {
    SCOPED_TRACE(::testing::Message() << "n=" << n);
    const Index rows = 9, stride = n + 5;
    const auto logits = random_floats(rows * stride, 1, /*scale=*/6);
    std::vector<std::int32_t> targets, ids;
    Reals expected = reals(logits);
    for (Index r = 0; r < rows; ++r) {
      const Index target = r * 31 % n;
      const bool counts = r % 4 != 2;
      ids.push_back(static_cast<std::int32_t>(target));
      targets.push_back(counts ? ids.back() : -1);
      Reals z(expected.begin() + r * stride, expected.begin() + r * stride + n);
      Reals dz = z;
      std::ranges::fill(dz, 0);
      if (counts) reference::cross_entropy_vjp(z.data(), n, target, f64(0.25F), dz.data());
      std::copy(dz.begin(), dz.end(), expected.begin() + r * stride);
    }
    const auto run = [&](Device& device) {
      std::vector<float> got = logits, log_prob(targets.size(), -1), plain = log_prob;
      device.cross_entropy({.logits = got.data(),
                            .stride = stride,
                            .n = n,
                            .targets = targets,
                            .dloss = 0.25F,
                            .log_prob = log_prob.data()});
      device.log_prob({.logits = logits.data(),
                       .stride = stride,
                       .n = n,
                       .ids = ids,
                       .log_prob = plain.data()});
      for (std::size_t r = 0; r < targets.size(); ++r) {
        if (targets[r] < 0) plain[r] = 0;
      }
      EXPECT_TRUE(same_bits(log_prob, plain));
      return joined(got, log_prob);
    };
    for_each_cpu_target([&](Device& device) {
      std::vector<float> got = run(device);
      got.resize(logits.size());
      expect_near(got, floats(expected), {.abs = 1e-7, .rel = 2e-6});
    });
    expect_threads_do_not_matter(run);
  }
}

TEST(SumSquares, DependsOnTheLengthAlone) {
  for (const Index n : {Index{0}, Index{1}, Index{63}, Index{4096}, Index{4097}, Index{100003}}) {
    const auto x = random_floats(n + 1, 1);
    double expected = 0;
    for (Index i = 0; i < n; ++i) {
      expected += f64(x[static_cast<std::size_t>(i)]) * f64(x[static_cast<std::size_t>(i)]);
    }
    const auto size = static_cast<std::size_t>(n);
    for_each_cpu_target([&](Device& device) {
      EXPECT_NEAR(device.sum_squares({x.data(), size}), expected, 1e-12 * expected);
    });
    expect_threads_do_not_matter([&](Device& device) {
      std::vector<float> bits(2);
      const double sum = device.sum_squares({x.data(), size});
      std::memcpy(bits.data(), &sum, sizeof(sum));
      return bits;
    });
  }
}

// ---------------------------------------------------------------------------------------------------

struct Optimizer {
  DType moments;
  float weight_decay, grad_scale;
};

// torch.optim.AdamW's own steps, with pow and in f64.
void torch_adamw(const AdamWArgs& a, float grad, double& w, double& m, double& v) {
  const double g = f64(grad) * f64(a.grad_scale), beta1 = f64(a.beta1), beta2 = f64(a.beta2);
  const double step = static_cast<double>(a.step);
  w *= 1 - f64(a.lr) * f64(a.weight_decay);
  m = m * beta1 + g * (1 - beta1);
  v = v * beta2 + g * g * (1 - beta2);
  const double denominator = std::sqrt(v) / std::sqrt(1 - std::pow(beta2, step)) + f64(a.eps);
  w -= f64(a.lr) / (1 - std::pow(beta1, step)) * m / denominator;
}

TEST(AdamW, IsTorchs) {
  for (const Index n : {Index{1}, Index{17}, Index{5003}}) {
    for (const Optimizer& o : {Optimizer{DType::f32, 0.1F, 1}, Optimizer{DType::f32, 0, 0.3F},
                               Optimizer{DType::bf16, 0.1F, 0.5F}}) {
      SCOPED_TRACE(::testing::Message() << "n=" << n << " " << name(o.moments));
      const bool bf16 = o.moments == DType::bf16;
      const auto start = random_floats(n, 1);
      const std::size_t bytes = static_cast<std::size_t>(row_bytes(o.moments, n));
      const auto run = [&](Device& device) {
        std::vector<float> w = start;
        std::vector<std::byte> m(bytes), v(bytes);
        Reals expected = reals(start);
        std::vector<float> m_is(start.size(), 0), v_is = m_is;
        for (Index step = 1; step <= 5; ++step) {
          const auto grad = random_floats(n, static_cast<std::uint64_t>(10 + step));
          const AdamWArgs args = {.w = w.data(),
                                  .grad = grad.data(),
                                  .m = m.data(),
                                  .v = v.data(),
                                  .moments = o.moments,
                                  .n = n,
                                  .lr = 1e-2F,
                                  .weight_decay = o.weight_decay,
                                  .grad_scale = o.grad_scale,
                                  .step = step};
          Reals m_to(start.size()), v_to = m_to;
          for (std::size_t i = 0; i < start.size(); ++i) {
            m_to[i] = f64(m_is[i]), v_to[i] = f64(v_is[i]), expected[i] = f64(w[i]);
            torch_adamw(args, grad[i], expected[i], m_to[i], v_to[i]);
          }
          device.adamw(args);
          dequantize_row(o.moments, m.data(), m_is.data(), n);
          dequantize_row(o.moments, v.data(), v_is.data(), n);
          // bf16: half a unit of the last of 8 bits.
          const Tolerance moment = {.abs = 1e-7, .rel = bf16 ? 1.0 / 256 : 1e-6};
          expect_near(w, floats(expected), {.abs = 2e-7, .rel = 2e-7});
          expect_near(m_is, floats(m_to), moment);
          expect_near(v_is, floats(v_to), moment);
        }
        return joined(joined(w, m_is), v_is);
      };
      for_each_cpu_target([&](Device& device) { run(device); });
      expect_threads_do_not_matter(run);
    }
  }
}

TEST(AdamW, NotANumberStaysOne) {
  for_each_cpu_target([](Device& device) {
    std::vector<float> w(20, 1), grad(20, 0);
    grad[3] = NAN;
    std::vector<std::byte> m(40), v(40);
    device.adamw({.w = w.data(),
                  .grad = grad.data(),
                  .m = m.data(),
                  .v = v.data(),
                  .moments = DType::bf16,
                  .n = 20,
                  .lr = 0.1F});
    std::vector<float> moment(20);
    dequantize_row(DType::bf16, m.data(), moment.data(), 20);
    for (std::size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(std::isnan(moment[i]), i == 3) << i;
      EXPECT_EQ(std::isnan(w[i]), i == 3) << i;
    }
  });
}

}  // namespace
}  // namespace kogia::testing
