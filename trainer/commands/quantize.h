#pragma once

namespace CLI {
class App;
}

namespace nibble {

// nibble quantize: makes one operand of a recipe from a tensor in a file, writes its codes and scales, and says what
// the rounding did.
void add_quantize_command(CLI::App& app);

}  // namespace nibble
