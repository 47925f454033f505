// The Python module tinystarcoder.engine._native. Everything that comes from Python is checked
// here or by the class it goes to: a wrong array is an exception, never a crash.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "engine.h"
#include "instruction_sets.h"
#include "probe.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WritableBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

tsc::Format format_of(const std::string& precision) {
  if (precision == "fp32") return tsc::Format::f32;
  if (precision == "bf16") return tsc::Format::bf16;
  if (precision == "int8") return tsc::Format::i8;
  if (precision == "int4") return tsc::Format::i4;
  throw std::invalid_argument("precision " + precision + ": must be fp32, bf16, int8 or int4");
}

void check_buffer(const tsc::Plan& plan, const void* data, size_t bytes) {
  if (bytes != plan.bytes)
    throw std::invalid_argument("a packed model of " + std::to_string(bytes) + " bytes; expected " +
                                std::to_string(plan.bytes));
  if (reinterpret_cast<uintptr_t>(data) % 64 != 0)
    throw std::invalid_argument("a packed model that is not aligned to 64 bytes");
}

void pack(const tsc::Plan& plan, size_t index, Floats weight, nb::object bias,
          WritableBytes buffer) {
  check_buffer(plan, buffer.data(), buffer.size());
  if (index >= plan.entries.size()) throw std::invalid_argument("no such entry");
  const tsc::Entry& entry = plan.entries[index];
  if (weight.size() != size_t(entry.out) * entry.in)
    throw std::invalid_argument("tensor " + entry.weight + " has a wrong shape");
  const float* biases = nullptr;
  Floats held;
  if (!bias.is_none()) {
    held = nb::cast<Floats>(bias);
    if (held.size() != size_t(entry.out))
      throw std::invalid_argument("tensor " + entry.bias + " has a wrong shape");
    biases = held.data();
  }
  const nb::gil_scoped_release unlocked;
  tsc::pack(entry, weight.data(), biases, buffer.data());
}

// Keeps the packed model alive as long as the engine.
class PyEngine {
 public:
  PyEngine(const tsc::Plan& plan, Bytes buffer, int threads, const std::string& instruction_set)
      : buffer_(buffer), config_(plan.config) {
    check_buffer(plan, buffer.data(), buffer.size());
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads: must be 1 to 1024");
    engine_ = std::make_unique<tsc::Engine>(plan, buffer.data(), threads, instruction_set);
  }

  tsc::Engine& engine() { return *engine_; }

  // `ids` of all requests one behind the other, `counts` of them for each slot.
  void forward(const std::vector<int>& slots, const std::vector<int>& counts, Ids ids,
               bool all_logits, Logits logits) {
    if (slots.size() != counts.size()) throw std::invalid_argument("slots and counts differ");
    std::vector<tsc::Request> requests;
    size_t at = 0, rows = 0;
    for (size_t i = 0; i < slots.size(); i++) {
      if (counts[i] < 1 || counts[i] > config_.positions - engine_->length(slots[i]))
        throw std::invalid_argument("tokens that do not fit the context");
      for (size_t j = 0; j < i; j++)
        if (slots[j] == slots[i]) throw std::invalid_argument("a slot twice in one pass");
      if (at + counts[i] > ids.size()) throw std::invalid_argument("too few ids");
      requests.push_back({slots[i], ids.data() + at, counts[i]});
      at += counts[i];
      rows += all_logits ? counts[i] : 1;
    }
    if (at != ids.size()) throw std::invalid_argument("too many ids");
    for (size_t i = 0; i < ids.size(); i++)
      if (ids.data()[i] < 0 || ids.data()[i] >= config_.vocab)
        throw std::invalid_argument("an id outside the vocabulary");
    if (logits.shape(0) != rows || logits.shape(1) != size_t(config_.vocab))
      throw std::invalid_argument("logits of a wrong shape");
    const nb::gil_scoped_release unlocked;
    engine_->forward(requests, all_logits, logits.data());
  }

 private:
  Bytes buffer_;
  tsc::Config config_;
  std::unique_ptr<tsc::Engine> engine_;
};

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The native CPU engine; see csrc/ and docs/engine.md.";

  nb::class_<tsc::Plan>(m, "Plan")
      .def(
          "__init__",
          [](tsc::Plan* self, int vocab, int positions, int width, int layers, int heads, int inner,
             bool multi_query, bool tanh_gelu, float epsilon, const std::string& precision) {
            const tsc::Config config{vocab, positions,   width,     layers, heads,
                                     inner, multi_query, tanh_gelu, epsilon};
            new (self) tsc::Plan(config, format_of(precision));
          },
          nb::kw_only(), "vocab"_a, "positions"_a, "width"_a, "layers"_a, "heads"_a, "inner"_a,
          "multi_query"_a, "tanh_gelu"_a, "epsilon"_a, "precision"_a)
      .def_ro("bytes", &tsc::Plan::bytes)
      .def_prop_ro("entries", [](const tsc::Plan& plan) {
        std::vector<std::tuple<std::string, std::string>> names;
        for (const tsc::Entry& entry : plan.entries) names.emplace_back(entry.weight, entry.bias);
        return names;
      });

  m.def("pack", &pack, "plan"_a, "index"_a, "weight"_a.noconvert(), "bias"_a.none(),
        "buffer"_a.noconvert());
  m.def("checksum", [](Bytes data) {
    const nb::gil_scoped_release unlocked;
    return tsc::checksum(data.data(), data.size());
  });

  nb::class_<PyEngine>(m, "Engine")
      .def(nb::init<const tsc::Plan&, Bytes, int, const std::string&>(), "plan"_a,
           "buffer"_a.noconvert(), "threads"_a, "instruction_set"_a = "")
      .def("allocate", [](PyEngine& self) { return self.engine().allocate(); })
      .def("release", [](PyEngine& self, int slot) { self.engine().release(slot); })
      .def("length", [](PyEngine& self, int slot) { return self.engine().length(slot); })
      .def("truncate",
           [](PyEngine& self, int slot, int length) { self.engine().truncate(slot, length); })
      .def("copy",
           [](PyEngine& self, int source, int target) { self.engine().copy(source, target); })
      .def("forward", &PyEngine::forward, "slots"_a, "counts"_a, "ids"_a.noconvert(),
           "all_logits"_a, "logits"_a.noconvert())
      .def_prop_ro("cache_bytes", [](PyEngine& self) { return self.engine().cache_bytes(); })
      .def_prop_ro("instruction_set",
                   [](PyEngine& self) { return self.engine().instruction_set(); })
      .def_prop_ro("threads", [](PyEngine& self) { return self.engine().threads(); });

  m.def("instruction_sets", &tsc::instruction_sets);
  m.def("stream_probe", [](Bytes data, int threads, int passes, const std::string& name) {
    const nb::gil_scoped_release unlocked;
    return tsc::stream_probe(data.data(), data.size(), threads, passes, name);
  }, "data"_a, "threads"_a, "passes"_a, "instruction_set"_a = "");
}
