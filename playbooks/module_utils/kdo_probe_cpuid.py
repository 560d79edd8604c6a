# SPDX-License-Identifier: Apache-2.0
"""The CPUID instruction, where there is no /dev/cpu/0/cpuid: that device needs a module and root, the instruction neither.

Twenty-seven bytes of machine code in an anonymous page of this process, called through ctypes. A system that forbids
executable pages refuses the page, and then the caller has to do without.
"""

import mmap
import struct

# push rbx; mov eax, edi; xor ecx, ecx; cpuid; mov [rsi], eax; mov [rsi+4], ebx; mov [rsi+8], ecx; mov [rsi+12], edx;
# pop rbx; ret   (System V calling convention: edi = leaf, rsi = 16 bytes for the answer)
_CODE = b"\x53\x89\xf8\x31\xc9\x0f\xa2\x89\x06\x89\x5e\x04\x89\x4e\x08\x89\x56\x0c\x5b\xc3"


def leaves(numbers):
    """``[(number, 16 bytes)]``: eax, ebx, ecx, edx of each leaf. OSError or ImportError where it cannot be done."""
    import ctypes

    if struct.calcsize("P") != 8:
        raise OSError("this Python is not a 64-bit program")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_CODE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(start)
    out = []
    for number in numbers:
        answer = ctypes.create_string_buffer(16)
        call(number, ctypes.addressof(answer))
        out.append((number, answer.raw))
    return out
