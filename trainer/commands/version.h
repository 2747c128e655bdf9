// nibble --version: one thing a line, its name first. Scripts read it; lines are added, never renamed.
#pragma once

#include <string>

namespace nibble {

struct BuildFacts {
  const char* commit;  // "4f1780cabcde", with "+changes" where files differ from it; "unknown" outside a git tree
  const char* cuda;    // "12.9.86": the toolkit; "simulated"; "none"
};

// Defined by a source that scripts/build_facts.cmake writes with every build.
extern const BuildFacts build_facts;

// The lines, without a line end after the last. Starts neither MPI nor a device. Throws Error(usage) where NIBBLE_ISA
// names no level of this machine.
std::string version_text(const BuildFacts& build);

}  // namespace nibble
