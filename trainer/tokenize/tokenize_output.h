// The output directory of nibble tokenize.
//
// Everything is written to a hidden folder in it and moved into place at the end. An Error, a signal or a crash before
// that changes nothing else in the directory. After an Error or a signal nothing is left behind either, not even a
// directory that had to be made, unless keep() has been called: then the hidden folder stays, and the same call goes on
// from it.
//
// Only what an earlier nibble tokenize wrote is replaced: regular files train-NNNNN.bin and validation-NNNNN.bin that
// begin as nibble's shards do, and a tokenizer (tokenizer.model, .json or .tiktoken, with its options) whose hash one
// of these shards names.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "data/tokenizers/tokenizer.h"

namespace nibble {

class TokenizeOutput {
 public:
  // Makes the directory if need be, locks it, and looks at what is there. `given` is the tokenizer that the
  // shards are made with, or null if it will be trained: the same tokenizer is not in the way.
  // `call` identifies the inputs and the options: what another call has kept is removed.
  // Throws ExitCode::cannot_create if the directory cannot be written, if it holds an earlier output and `overwrite` is
  // not set, or if a file that is not nibble's has a name that is needed; ExitCode::directory_in_use if another process
  // tokenizes into it.
  // From now on SIGINT, SIGTERM and SIGHUP (unless ignored) end the process with 128 + their number, and leave the
  // directory as it was. They are blocked on this thread and on threads that it starts later.
  TokenizeOutput(const std::filesystem::path& directory, bool overwrite, const Tokenizer* given, std::string call);
  ~TokenizeOutput();
  TokenizeOutput(const TokenizeOutput&) = delete;
  TokenizeOutput& operator=(const TokenizeOutput&) = delete;

  // The folder to write to.
  const std::filesystem::path& folder() const;
  // A folder for what is needed meanwhile; it is never moved.
  std::filesystem::path scratch() const;
  // Returns what the same call gave to keep() before it was stopped; nothing if it was not.
  const std::optional<std::string>& kept() const;
  // From now on what is in the folder outlives an Error, a signal and a crash, with this text.
  void keep(const std::string& text);
  // Moves all files of the folder into the directory, in place of the earlier output. If that fails, the earlier output
  // is put back.
  void publish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace nibble
