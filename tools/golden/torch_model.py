"""A checkpoint in transformers, ready to be trained: with the multi-token prediction layers that transformers' causal
model leaves out, and with the official name of each parameter.

Used by make_gradients.py and make_training.py.
"""

import contextlib

import torch
from transformers import AutoModelForCausalLM, logging
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

from deepseek import dequantised, read_checkpoint

MTP_LAMBDA = 0.3
logging.set_verbosity_error()  # that the causal model does not know the layers of multi-token prediction
logging.disable_progress_bar()


@contextlib.contextmanager
def in_double():
    """In here f64 is used also by what transformers always does in f32: norms, softmax, routers, rotary tables."""
    names = ("float32", "float")
    saved = {name: getattr(torch, name) for name in names}
    for name in names:
        setattr(torch, name, torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        for name in names:
            setattr(torch, name, saved[name])
        del torch.Tensor.float  # that of the base class is back


class MtpLayer(torch.nn.Module):
    """One depth of multi-token prediction, its parameters named as in a checkpoint."""

    def __init__(self, config, layer):
        super().__init__()
        norm = lambda: DeepseekV3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.enorm, self.hnorm = norm(), norm()
        self.eh_proj = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.block = DeepseekV3DecoderLayer(config, layer)
        self.shared_head = torch.nn.ModuleDict({"norm": norm()})

    def forward(self, h, embedded, rotary):
        """h, embedded [B, T, hidden]: the state behind a token, already normed, and the embedding of the next one."""
        x = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(h)], -1))
        n = x.shape[1]
        mask = torch.full((n, n), float("-inf"), dtype=x.dtype).triu(1)[None, None]
        x = self.block(x, attention_mask=mask, position_embeddings=rotary(x, torch.arange(n)[None]))
        return self.shared_head["norm"](x)


def official(name, x):
    """(name in the checkpoint, tensor) of a parameter of transformers, which stacks the experts of a layer."""
    stem, _, last = name.rpartition(".")
    if last == "gate_up_proj":
        for e, both in enumerate(x):
            gate, up = both.chunk(2)
            yield f"{stem}.{e}.gate_proj.weight", gate
            yield f"{stem}.{e}.up_proj.weight", up
    elif stem.endswith(".experts") and last == "down_proj":
        for e, down in enumerate(x):
            yield f"{stem}.{e}.down_proj.weight", down
    else:
        yield name, x


class TorchModel(torch.nn.Module):
    def __init__(self, folder, double=False):
        super().__init__()
        self.main = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager").eval()
        self.config = self.main.config
        n_layers = self.config.num_hidden_layers
        stored = dequantised(read_checkpoint(str(folder)), "float32")
        n_mtp = sum(name.endswith("eh_proj.weight") for name in stored)  # the class claims one whatever the file holds
        self.mtp = torch.nn.ModuleList(MtpLayer(self.config, n_layers + k) for k in range(n_mtp)).eval()
        self._fill_and_check(stored)
        if double:
            self.double()
            with in_double():
                self.main.model.rotary_emb = type(self.main.model.rotary_emb)(self.config)
        self.routed = []  # (logits, experts) of every router that ran, in order
        for module in self.modules():
            if type(module).__name__.endswith("TopkRouter"):
                module.register_forward_hook(lambda module, _, out: self.routed.append((out[0], out[2])))

    def named(self, get=lambda parameter: parameter):
        """{official name: get(parameter)}, of the tensors that the checkpoint holds once."""
        out = {}
        for name, parameter in self.main.named_parameters():
            out |= official(name, get(parameter))
        for k, layer in enumerate(self.mtp):
            for name, parameter in layer.named_parameters():
                name = f"model.layers.{self.config.num_hidden_layers + k}." + name.removeprefix("block.")
                out |= official(name, get(parameter))
        return out

    def biases(self):
        """{official name: selection bias} of the layers of sigmoid routers."""
        out = {n: b for n, b in self.main.named_buffers() if n.endswith("e_score_correction_bias")}
        for k, layer in enumerate(self.mtp):
            name = f"model.layers.{self.config.num_hidden_layers + k}.mlp.gate.e_score_correction_bias"
            out[name] = layer.block.mlp.gate.e_score_correction_bias
        return out

    def _fill_and_check(self, stored):
        prefixes = [f"model.layers.{self.config.num_hidden_layers + k}." for k in range(len(self.mtp))]
        ours = self.named(lambda parameter: parameter.data) | self.biases()
        for name, x in ours.items():
            if name.startswith(tuple(prefixes)):
                x.copy_(torch.from_numpy(stored[name]))
            assert torch.equal(x, torch.from_numpy(stored[name])), f"{name}: transformers loaded something else"
        copies = {p + n: of for p in prefixes for n, of in (("embed_tokens.weight", "model.embed_tokens.weight"),
                                                            ("shared_head.head.weight", "lm_head.weight"))}
        assert set(stored) == set(ours) | set(copies), set(stored) ^ (set(ours) | set(copies))
        for name, of in copies.items():
            assert (stored[name] == stored[of]).all(), name

    def losses(self, ids):
        """Sums of -log p over the targets of documents ids [B, n]: of the main model and of each depth."""
        n = ids.shape[1]
        nll = lambda h, targets: torch.nn.functional.cross_entropy(
            self.main.lm_head(h).flatten(0, 1), targets.flatten(), reduction="sum")
        h = self.main.model(ids[:, :-1], use_cache=False).last_hidden_state
        sums = [nll(h, ids[:, 1:])]
        for k, layer in enumerate(self.mtp, 1):
            n_rows = n - 1 - k
            embedded = self.main.model.embed_tokens(ids[:, k:k + n_rows])
            h = layer(h[:, :n_rows], embedded, self.main.model.rotary_emb)
            sums.append(nll(h, ids[:, k + 1:]))
        return sums

    def take_routed(self):
        routed, self.routed = self.routed, []
        return routed
