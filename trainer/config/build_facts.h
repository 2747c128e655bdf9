// What a program knows of its build.
#pragma once

namespace nibble {

struct BuildFacts {
  const char* commit;  // "4f1780cabcde", with "+changes" where files differ from it; "unknown" outside a git tree
  const char* cuda;    // "12.9.86": the toolkit; "simulated"; "none"
};

// Defined by a source that scripts/build_facts.cmake writes with every build.
extern const BuildFacts build_facts;

}  // namespace nibble
