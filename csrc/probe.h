// The machine's limits, for benchmarks alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tsc {

// Bytes a second at which `threads` read `data` in dot products, each its own part, in one stream.
double stream_probe(const uint8_t* data, size_t bytes, int threads, int passes,
                    const std::string& instruction_set);

}  // namespace tsc
