; A guest for GDB to look at, in 32 or 64 bits (BITS): counts in `work` until `leave` is set, then ends with exit code 7.
        bits BITS
        default rel
        global _start, again, work, counter, leave

        section .text
_start: mov dword [counter], 0
again:  call work
        cmp dword [leave], 0
        je again
        mov al, 3
        out 0xf4, al

work:   inc dword [counter]
        mov eax, [counter]
        nop
        ret

        section .data
counter:
        dd 0
leave:  dd 0
