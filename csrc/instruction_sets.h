// The choice among the kernels that were built.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace tsc {

// The names of the sets that this machine runs, fastest first.
std::vector<std::string> instruction_sets();

// The fastest set that this machine runs, or the one named where `name` is not empty.
// Throws std::invalid_argument for a name that is not among instruction_sets().
const Kernels& choose_kernels(const std::string& name);

}  // namespace tsc
