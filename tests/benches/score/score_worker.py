"""PyTorch's and Python's side of `cargo xtask bench score` and `bench batch`; one thread.

Usage: score_worker.py serve CHECKPOINT   answers the lines below, one by one
       score_worker.py open CHECKPOINT    loads the student, answers once, ends
       score_worker.py quantize IN OUT    quantizes an ONNX file dynamically, as it comes
       score_worker.py external IN OUT WEIGHTS   moves the weights of an ONNX file to another one
Lines: vector KIND N       the user vector of the first N items
       run KIND N          a recommendation for them; KIND: eager, compile, append or sasrec
       users FILE          histories as JSON, lists of rows; answered with `ok`
       together SIZE       a recommendation for each of them, so many in a batch, like lengths together
       of-user N SIZE      the user vector of the Nth in such a batch
       product TYPE        a product of two square matrices of SIZE; TYPE: f32, u8u8 or u8s8
`vector` and `of-user` answer with the vector, the others with wall and CPU milliseconds, peak memory in KiB and
NaN (no loss); a line that cannot be done with `missing:` and the reason."""
import json
import os
import resource
import sys
import time

import torch
from torch import nn

SIZE, K = 1024, 10


def figures(wall, cpu):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{wall * 1e3} {cpu * 1e3} {peak} nan"


def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return figures(time.perf_counter() - wall, time.process_time() - cpu)


class Student:
    """The checkpoint in transformers' Llama; its own tensors around it."""

    def __init__(self, folder):
        from safetensors.torch import load_file
        from transformers import LlamaConfig, LlamaModel

        config = json.load(open(os.path.join(folder, "config.json")))
        prompt = json.load(open(os.path.join(folder, "recommender.json")))["prompt"]
        self.body = LlamaModel(LlamaConfig(**config, bos_token_id=None, eos_token_id=None))
        weights = load_file(os.path.join(folder, "model.safetensors"))
        self.body.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in weights.items()})
        self.body.eval()
        own = load_file(os.path.join(folder, "recommender.safetensors"))
        self.items = own["item_embeddings.weight"]
        self.item_weight, self.item_bias = (
            own["item_projection.weight"], own["item_projection.bias"])
        self.user_weight = own["user_projection.weight"]
        tokens = weights["model.embed_tokens.weight"]
        prefix = len(prompt["prefix_tokens"])
        self.prefix = tokens[:prefix]
        self.suffix = tokens[prefix:prefix + len(prompt["suffix_tokens"])]

    def embedded(self, history):
        return nn.functional.linear(self.items[history], self.item_weight, self.item_bias)

    def read(self, states):
        return self.user_weight @ states[0, -1]

    def vector(self, history):
        parts = [self.prefix, self.embedded(history), self.suffix]
        states = self.body(inputs_embeds=torch.cat(parts)[None], use_cache=False)
        return self.read(states.last_hidden_state)

    def vectors(self, histories):
        """Those of a batch without a prompt: under a causal mask padding on the right is not seen."""
        last = torch.tensor([len(history) for history in histories]) - 1
        padded = nn.utils.rnn.pad_sequence(histories, batch_first=True)
        states = self.body(inputs_embeds=self.embedded(padded), use_cache=False)
        states = states.last_hidden_state[torch.arange(len(last)), last]
        return states @ self.user_weight.T

    def keep(self, history):
        """Keys and values of the prompt prefix and a history."""
        parts = [self.prefix, self.embedded(history)]
        return self.body(inputs_embeds=torch.cat(parts)[None], use_cache=True).past_key_values

    def append(self, kept, item):
        """The user vector after one more item; what is kept is left as it was."""
        length = kept.get_seq_length()
        parts = [self.embedded(item), self.suffix]
        states = self.body(
            inputs_embeds=torch.cat(parts)[None], past_key_values=kept, use_cache=True)
        vector = self.read(states.last_hidden_state)
        kept.crop(length - kept.get_seq_length())
        return vector


class SasRec(nn.Module):
    """d 128, two layers of two heads, random weights, as many items as the student knows."""

    def __init__(self, items, longest=50, width=128):
        super().__init__()
        self.items = nn.Embedding(items, width).weight
        self.positions = nn.Embedding(longest, width).weight
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(
            width, 2, width, 0.0, batch_first=True, norm_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.eval()

    def vector(self, history):
        length = len(history)
        x = (self.items[history] + self.positions[:length])[None]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return self.norm(x[0, -1])


def best(table, vector, history):
    scores = table[1:] @ vector
    scores[history - 1] = -torch.inf
    return scores.topk(K).indices


def best_of_all(table, vectors, histories):
    scores = vectors @ table[1:].T
    for row, history in zip(scores, histories):
        row[history - 1] = -torch.inf
    return scores.topk(K).indices


class Server:
    def __init__(self, folder):
        self.student = Student(folder)
        self.sasrec = SasRec(len(self.student.items))
        self.compiled = torch.compile(self.student.vector, dynamic=False)
        self.kept, self.products = {}, {}

    def answer(self, what, kind, length=None):
        if what == "product":
            return timed(self.product(kind))
        if what == "users":
            histories = [torch.tensor(history) for history in json.load(open(kind))]
            self.histories = sorted(histories, key=len)
            self.order = sorted(range(len(histories)), key=lambda n: len(histories[n]))
            return "ok"
        if what == "together":
            return timed(lambda: self.together(int(kind)))
        if what == "of-user":
            at, size = self.order.index(int(kind)), int(length)
            first = at - at % size
            vectors = self.student.vectors(self.histories[first:first + size])
            return " ".join(str(value) for value in vectors[at - first].tolist())
        length = int(length)
        history = torch.arange(1, length + 1)
        if kind == "append" and length not in self.kept:
            self.kept[length] = self.student.keep(history[:-1])
        vector = {
            "eager": lambda: self.student.vector(history),
            "compile": lambda: self.compiled(history),
            "append": lambda: self.student.append(self.kept[length], history[-1:]),
            "sasrec": lambda: self.sasrec.vector(history),
        }[kind]
        if what == "vector":
            return " ".join(str(value) for value in vector().tolist())
        table = self.sasrec.items if kind == "sasrec" else self.student.items
        return timed(lambda: best(table, vector(), history))

    def together(self, size):
        for first in range(0, len(self.histories), size):
            histories = self.histories[first:first + size]
            best_of_all(self.student.items, self.student.vectors(histories), histories)

    def product(self, kind):
        """A product in ONNX Runtime."""
        if kind not in self.products:
            self.products[kind] = square_product(kind)
        return self.products[kind]


def square_product(kind):
    import numpy
    import onnx
    import onnxruntime

    left, right = {
        "f32": (numpy.float32, numpy.float32),
        "u8u8": (numpy.uint8, numpy.uint8),
        "u8s8": (numpy.uint8, numpy.int8),
    }[kind]
    make = lambda dtype: numpy.random.default_rng(1).integers(0, 100, (SIZE, SIZE)).astype(dtype)
    value = lambda name, dtype: onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(numpy.dtype(dtype)), [SIZE, SIZE])
    operator, out = ("MatMul", left) if kind == "f32" else ("MatMulInteger", numpy.int32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", "w"], ["y"])], "product",
        [value("x", left)], [value("y", out)], [onnx.numpy_helper.from_array(make(right), "w")])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    x = make(left)
    return lambda: session.run(None, {"x": x})


def quantize(source, target):
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target)


def external(source, target, weights):
    import onnx

    onnx.save_model(
        onnx.load(source), target, save_as_external_data=True, location=weights,
        size_threshold=1024)


def main():
    mode, *arguments = sys.argv[1:]
    if mode in ("quantize", "external"):
        return {"quantize": quantize, "external": external}[mode](*arguments)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    with torch.inference_mode():
        if mode == "open":
            student = Student(arguments[0])
            history = torch.arange(1, 51)
            best(student.items, student.vector(history), history)
            print(figures(0.0, time.process_time()))
            return
        server = Server(arguments[0])
        for line in sys.stdin:
            try:
                print(server.answer(*line.split()), flush=True)
            except Exception as error:  # The bench says what is missing.
                reason = " ".join(str(error).split())
                print(f"missing: {type(error).__name__}: {reason[:300]}", flush=True)


main()
