/* Stands in for a DLL that Wine before version 9 lacks and every Rust program asks for. For trying things under Wine alone. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG len);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T len) {
    while (len > 0) {
        ULONG piece = len > 0x1000000 ? 0x1000000 : (ULONG)len;
        if (!SystemFunction036(buffer, piece)) return FALSE;
        buffer += piece;
        len -= piece;
    }
    return TRUE;
}
