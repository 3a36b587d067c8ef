; A hostile guest: hypercalls and debug MSR accesses with random arguments, without end in sight.
;
; It looks itself whether a call wrote where it must not: every other page of the arena is a guard that
; it never names, full of one pattern. What stops it ends it through the debug-exit port.

%include "guest.inc"

; Set from outside before the start.
CALLS         equ 0x300000      ; dword: hypercalls to make
SEED          equ 0x300008      ; qword, not 0
RAM_END       equ 0x300010      ; qword
GUARD_SKIP    equ 0x300018      ; dword: bytes of a guard that a call may write at its start
CALL_CODE     equ 0x300040      ; qword: code to call instead of VMCALL and VMMCALL, or 0
; Counted for the outside.
MSRS          equ 0x300020      ; dword: MSR accesses
FAULTS        equ 0x300024      ; dword: exceptions taken
STATUSES      equ 0x301000      ; dword each: how often a call gave status 0 to 255
BAD_ADDRESS   equ 0x300028      ; qword: where a guard was damaged
BAD_CALL      equ 0x300030      ; qword: RCX of the last call
ODD_RESULTS   equ 0x300038      ; dword: results with reserved bits or an unlikely status

ARENA         equ 0x400000
ARENA_PAIRS   equ 64            ; of a page and its guard
GUARD         equ 0x5A5AA5A55A5AA5A5
SYNDBG_FIRST  equ 0x400000F1

main:
  mov r15, [abs SEED]
  ; guards
  mov edi, ARENA + 0x1000
  mov edx, ARENA_PAIRS
  mov rax, GUARD
.guard:
  mov ecx, 512
  rep stosq
  add edi, 0x1000
  dec edx
  jnz .guard
  ; who we are, without which there are no calls
  mov ecx, 0x40000000
  mov eax, 0x01010001
  call safe_wrmsr
  jc .stop
.next:
  call random
  test al, 3
  jz .msr
  call hypercall
  call check_guards
  jc .damaged
  dec dword [abs CALLS]
  jnz .next
  jmp halt
.msr:
  call msr_access
  jmp .next
.damaged:
  mov [abs BAD_ADDRESS], rdi
  mov al, 1
  jmp fail
.stop:
  mov al, 2
  jmp fail

; RAX = the next random number (xorshift64 of Marsaglia).
random:
  mov rax, r15
  shl rax, 13
  xor r15, rax
  mov rax, r15
  shr rax, 7
  xor r15, rax
  mov rax, r15
  shl rax, 17
  xor r15, rax
  mov rax, r15
  shr rax, 20                   ; the lowest bits are the worst
  ret

; RAX = a guest-physical address: mostly the start of an arena page, else somewhere in one, near the
; end of RAM, or where there is none.
random_gpa:
  call random
  mov rdx, rax
  and edx, 15
  jz .nowhere
  cmp edx, 1
  je .ram_end
  mov rcx, rax
  shr rcx, 8
  and ecx, ARENA_PAIRS - 1
  shl ecx, 13
  add ecx, ARENA
  shr rax, 20
  cmp edx, 2
  je .anywhere
  cmp edx, 3
  je .page_end
  xor eax, eax
.anywhere:
  and eax, 0xFFF
  add eax, ecx
  ret
.page_end:
  and eax, 0x3F
  not eax                       ; -1 to -64
  lea eax, [rcx + rax + 0x1000]
  ret
.ram_end:
  shr rax, 8
  and eax, 0x7F
  neg rax
  add rax, [abs RAM_END]
  add rax, 0x20
  ret
.nowhere:
  call random
  bts rax, 42
  ret

; Writes count, options and timeout of a call at RDI where that is RAM we may write.
fill_input:
  mov rax, rdi
  add rax, 16
  cmp rax, [abs RAM_END]
  ja .no
  mov rax, rdi
  cmp rax, ARENA
  jb .no
  ; not across the page into the guard
  and eax, 0xFFF
  cmp eax, 0xFF0
  ja .no
  call random
  mov edx, eax
  shr eax, 8
  and edx, 7
  jz .count                     ; any count
  mov edx, eax
  and eax, 0xFFF                ; or a likely one
  test edx, 0x10000
  jz .count
  mov eax, 4088
.count:
  mov [rdi], eax
  call random
  mov edx, eax
  and eax, 3
  bt edx, 5
  jc .options
  call random                   ; options that nobody knows
.options:
  mov [rdi + 4], eax
  ; a LOOP in RETRIEVE may wait this long, in 100 ns
  call random
  and eax, 31
  mov [rdi + 8], rax
.no:
  ret

; Input value in RAX.
random_input:
  call random
  mov rdx, rax
  shr rdx, 16
  and eax, 15
  lea rcx, [codes]
  movzx eax, word [rcx + rax * 2]
  test dl, 7
  jnz .known
  movzx eax, dh                 ; any low code
.known:
  bt edx, 20
  jnc .slow
  or eax, 1 << 16
.slow:
  test edx, 0xF << 24
  jnz .done
  push rax
  call random                   ; any bits in all other fields
  pop rdx
  and rax, ~0xFFFF
  movzx edx, dx
  or rax, rdx
.done:
  ret

; One hypercall, 64-bit or 32-bit.
hypercall:
  call random_gpa
  mov rdi, rax
  push rax
  call fill_input
  call random_gpa
  push rax
  call random_input
  mov [abs BAD_CALL], rax
  mov rcx, rax
  pop r8
  pop rdx
  push rcx
  push rdx
  call random
  pop rdx
  pop rcx
  mov byte [fault], 0
  mov [saved_rsp], rsp
  test al, 3
  jz .compatibility
  lea rbx, [.done]
  mov [resume], rbx
  cmp qword [abs CALL_CODE], 0
  jne .code
  bt eax, 3
  jc .vmmcall
  vmcall
  jmp .done
.code:
  call qword [abs CALL_CODE]
  jmp .done
.vmmcall:
  vmmcall
.done:
  mov rsp, [saved_rsp]          ; a fault in the code left its return address
  cmp byte [fault], 0
  jne .fault
  ; bits 63:44 and 31:16 of a result are 0
  mov rdx, 0xFFFFF000FFFFFF00
  test rax, rdx
  jnz .odd
  movzx eax, al
  inc dword [STATUSES + rax * 4]
  ret
.odd:
  inc dword [abs ODD_RESULTS]
  ret
.fault:
  inc dword [abs FAULTS]
  ret

.compatibility:
  ; EDX:EAX, EBX:ECX, EDI:ESI
  mov rax, rcx
  mov rcx, rdx
  mov rbx, rdx
  shr rbx, 32
  mov rdx, rax
  shr rdx, 32
  mov esi, r8d
  mov rdi, r8
  shr rdi, 32
  jmp far dword [.compatibility_pointer]
.back:
  shl rdx, 32
  mov eax, eax
  or rax, rdx
  jmp .done
align 8
.compatibility_pointer:
  dd compatibility
  dw 0x18
align 8
saved_rsp:
  dq 0
bits 32
compatibility:
  ; the faults come back to 64-bit code by their IRET, which goes to the CS of the fault
  mov dword [resume], .done
  cmp dword [CALL_CODE], 0
  jne .code
  vmcall
  jmp .done
.code:
  call dword [CALL_CODE]
.done:
  jmp 8:.long
bits 64
.long:
  jmp hypercall.back
default rel

; One access to a debug MSR, or a read of any synthetic MSR.
msr_access:
  inc dword [abs MSRS]
  call random
  mov ebx, eax
  test al, 7
  jz .read_any
  shr eax, 8
  and eax, 7
  cmp eax, 5
  jb .index
  mov eax, 0                    ; CONTROL most often
.index:
  lea ecx, [rax + SYNDBG_FIRST]
  bt ebx, 3
  jc .read
  test eax, eax
  jz .control
  cmp eax, 1
  je .status
  push rcx
  call random_gpa
  pop rcx
  jmp .write
.control:
  push rcx
  call random
  pop rcx
  bt rax, 40
  jc .write                     ; any bits
  and eax, 0x0FFF0003
  jmp .write
.status:
  push rcx
  call random
  pop rcx
.write:
  call safe_wrmsr
  jnc .done
  inc dword [abs FAULTS]
.done:
  ; calls need this
  mov ecx, 0x400000FF
  mov eax, 4
  call safe_wrmsr
  ret
.read_any:
  movzx ecx, bx
  and ecx, 0x1FF
  or ecx, 0x40000000
.read:
  call safe_rdmsr
  jnc .done
  inc dword [abs FAULTS]
  jmp .done

; CF where a guard has another byte than its pattern: damage stays, so that a look now and then does.
check_guards:
  test dword [abs CALLS], 0xFFF
  jnz .good
  mov rax, GUARD
  mov edi, ARENA + 0x1000
  mov edx, ARENA_PAIRS
  cld
.whole:
  mov ecx, [abs GUARD_SKIP]
  add edi, ecx
  neg ecx
  add ecx, 0x1000
  shr ecx, 3
  repe scasq
  jne .bad
  add edi, 0x1000
  dec edx
  jnz .whole
.good:
  clc
  ret
.bad:
  stc
  ret

align 2
codes:
  dw 0x69, 0x69, 0x69, 0x6A, 0x6A, 0x6A, 0x6A, 0x6B
  dw 0x02, 0x03, 0x0B, 0x13, 0x14, 0x15, 0x5C, 0x8001

align 16
image_end:
