"""The forms of one matrix product that a quantized graph could have, in ONNX Runtime; one thread.

Usage: forms_worker.py   answers lines `run FORM ROWS`: the product of ROWS rows with a matrix
       [IN, OUT], repeated in one graph, each time with a matrix of its own. Answers with wall and
       CPU milliseconds, peak memory in KiB and NaN (no loss)."""
import resource
import sys
import time

import numpy
import onnx
import onnxruntime
from onnx import helper

IN, OUT, REPEATS = 576, 1536, 8
BLOCK = 32
random = numpy.random.default_rng(1)


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def node(self, operator, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{part}" for part in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0] if outputs == 1 else names


def fp32(graph, x):
    return graph.node("MatMul", x, graph.constant(random.random((IN, OUT), numpy.float32)))


def integer(graph, xq, zero):
    """The integer product, as floats, and the scales of the columns."""
    w = graph.constant(random.integers(0, 256, (IN, OUT)).astype(numpy.uint8))
    zeros = graph.constant(numpy.full(OUT, 128, numpy.uint8))
    product = graph.node("MatMulInteger", xq, w, zero, zeros)
    scales = graph.constant(numpy.full(OUT, 0.01, numpy.float32))
    return graph.node("Cast", product, to=onnx.TensorProto.FLOAT), scales


def dynamic(graph, x):
    """The activations' scale is found at every run."""
    xq, scale, zero = graph.node("DynamicQuantizeLinear", x, outputs=3)
    product, scales = integer(graph, xq, zero)
    return graph.node("Mul", product, graph.node("Mul", scale, scales))


def static(graph, x):
    """The activations' scale was found by calibration."""
    scale = graph.constant(numpy.array(0.02, numpy.float32))
    zero = graph.constant(numpy.array(128, numpy.uint8))
    product, scales = integer(graph, graph.node("QuantizeLinear", x, scale, zero), zero)
    return graph.node("Mul", product, scales)


def blocks(bits):
    def build(graph, x):
        count = IN // BLOCK
        w = random.integers(0, 256, (OUT, count, BLOCK * bits // 8)).astype(numpy.uint8)
        scales = numpy.full(OUT * count, 0.01, numpy.float32)
        return graph.node(
            "MatMulNBits", x, graph.constant(w), graph.constant(scales), domain="com.microsoft",
            K=IN, N=OUT, bits=bits, block_size=BLOCK, accuracy_level=4)

    return build


FORMS = {
    "fp32": fp32, "dynamic": dynamic, "static": static, "blocks-8": blocks(8),
    "blocks-4": blocks(4),
}


def session(form):
    graph = Graph()
    results = [FORMS[form](graph, "x") for _ in range(REPEATS)]
    value = lambda name, width: helper.make_tensor_value_info(
        name, onnx.TensorProto.FLOAT, ["rows", width])
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, form, [value("x", IN)], [value(name, OUT) for name in results],
            graph.constants),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def main():
    sessions = {}
    for line in sys.stdin:
        _, form, rows = line.split()
        if form not in sessions:
            sessions[form] = session(form)
        x = random.standard_normal((int(rows), IN)).astype(numpy.float32)
        wall, cpu = time.perf_counter(), time.process_time()
        sessions[form].run(None, {"x": x})
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{wall * 1e3 / REPEATS} {cpu * 1e3 / REPEATS} {peak} nan", flush=True)


main()
