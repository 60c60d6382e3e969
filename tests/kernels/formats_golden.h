/* SPDX-License-Identifier: Apache-2.0 */
/* Written by make_formats.py; do not edit. */
/* clang-format off */
{DTYPE_F16, 0x4578501073273a24ull},
{DTYPE_Q8_0, 0xd8c163b2ce8a47b7ull},
{DTYPE_Q4_0, 0x532fe4c42530f76eull},
{DTYPE_Q4_1, 0x38d0f9e46afa81b2ull},
{DTYPE_Q5_0, 0xaebd94cb9f0a540full},
{DTYPE_Q5_1, 0xcedccd0e18c2a4e6ull},
{DTYPE_Q4_K, 0x57712067e59073e9ull},
{DTYPE_Q5_K, 0xa19f45648e038a2full},
{DTYPE_Q6_K, 0xc59bea5940af2a5full},
{DTYPE_IQ4_NL, 0x1799dbdcea7bcb67ull},
{DTYPE_F32, 0xc62a1d327cec20dfull},
{DTYPE_BF16, 0xb41b7d99e261aefeull},
