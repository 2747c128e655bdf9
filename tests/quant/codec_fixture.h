// Made by make_codec_fixture.py, which says what is digested: do not edit.
// ml_dtypes 0.6.0, numpy 2.4.6.
#pragma once

namespace nibble::test {

struct CodecDigests {
  const char *format, *bf16, *spread, *decoded;
};
inline constexpr CodecDigests codec_digests[] = {
    {"e2m1", "0d3469a11c6606c7", "55fe1c16285ccf8f", "c736c7e2e761e089"},
    {"e4m3", "ec6eecf742e25e84", "852694a6b7d2a708", "422eccfaa21e72a6"},
    {"e5m2", "976e5d966f4e33a7", "09504a02fc85dca7", "229a94c5f728edf2"},
    {"e8m0", "", "", "2fb2732a95604377"},
};

}  // namespace nibble::test
