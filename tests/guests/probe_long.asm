; Runs probes in long mode: 64-bit and compatibility mode, as kernel and as user.

%include "guest.inc"
%include "probe.inc"

EXCEPTION_STACK equ STACK + 0x8000
TSS_SELECTOR    equ 0x38

main:
  ; The whole map is the user's too.
  mov edi, TABLES
  mov ecx, 0x6000 / 8
.user:
  mov eax, [rdi]
  add eax, eax
  and eax, 2
  add eax, eax                  ; 4 where the entry is present
  or [rdi], eax
  add edi, 8
  loop .user
  mov rax, cr3
  mov cr3, rax
  ; segments
  lea rax, [tss]
  mov [tss_descriptor + 2], ax
  shr eax, 16
  mov [tss_descriptor + 4], al
  mov [tss_descriptor + 7], ah
  lgdt [probe_gdt_pointer]
  mov ax, TSS_SELECTOR
  ltr ax
  mov ax, 0x2B
  mov ds, ax
  mov es, ax
  ; every exception to its stub, on a stack of its own
  xor ecx, ecx
  lea rsi, [stubs]
.gate:
  mov rax, rsi
  call set_gate
  mov byte [rdi + 4], 1         ; IST1
  add rsi, STUB_SIZE
  inc ecx
  cmp ecx, 32
  jb .gate

  mov dword [current], PROBE_TABLE
next:
  dec dword [abs PROBES]
  js halt
  mov esi, [current]
  lea rdi, [slot]
  mov ecx, CODE_SIZE / 8
  cld
  rep movsq
  mov ebx, [current]
  mov ecx, [rbx + P_MODE]
  lea rdx, [modes]
  movzx eax, word [rdx + rcx * 4 + 2]
  push rax                      ; SS
  push STACK
  push 2                        ; RFLAGS
  movzx eax, word [rdx + rcx * 4]
  push rax                      ; CS
  lea rax, [slot]
  push rax
  mov rax, [rbx + P_IN + R_AX]
  mov rcx, [rbx + P_IN + R_CX]
  mov rdx, [rbx + P_IN + R_DX]
  mov rsi, [rbx + P_IN + R_SI]
  mov rdi, [rbx + P_IN + R_DI]
  mov rbp, [rbx + P_IN + R_BP]
  mov r8, [rbx + P_IN + R_8]
  mov r9, [rbx + P_IN + R_9]
  mov rbx, [rbx + P_IN + R_BX]
  iretq

; The code of a probe, and the instruction that ends it.
align 16
slot:
  times CODE_SIZE nop
slot_end:
  ud2

; Mode numbers: CS and SS.
modes:
  dw 0x08, 0x10                 ; 0: 64-bit, kernel
  dw 0x33, 0x2B                 ; 1: 64-bit, user
  dw 0x18, 0x10                 ; 2: compatibility mode, kernel
  dw 0x23, 0x2B                 ; 3: compatibility mode, user

align 8
stubs:
%assign n 0
%rep 32
  %if !HAS_ERROR(n)
    push 0
  %else
    nop
    nop
  %endif
  push n
  jmp strict near exception
  %if n == 0
STUB_SIZE equ $ - stubs
  %endif
  %assign n n + 1
%endrep

; On the stack: vector, error code, RIP, ...
exception:
  push rbx
  mov ebx, [current]
  mov [rbx + P_OUT + R_AX], rax
  pop rax
  mov [rbx + P_OUT + R_BX], rax
  mov [rbx + P_OUT + R_CX], rcx
  mov [rbx + P_OUT + R_DX], rdx
  mov [rbx + P_OUT + R_SI], rsi
  mov [rbx + P_OUT + R_DI], rdi
  mov [rbx + P_OUT + R_BP], rbp
  mov [rbx + P_OUT + R_8], r8
  mov [rbx + P_OUT + R_9], r9
  pop rcx
  pop rdx
  pop rax
  lea rsi, [slot]
  sub rax, rsi
  cmp eax, CODE_SIZE
  jne .taken
  cmp ecx, 6
  jne .taken
  mov ecx, -1
.taken:
  mov [rbx + P_VECTOR], ecx
  mov [rbx + P_ERROR], edx
  mov [rbx + P_OFFSET], eax
  mov dword [rbx + P_DONE], 1
  add dword [current], PROBE_SIZE
  mov esp, STACK
  jmp next

align 8
probe_gdt:
  dq 0
  dq 0x00AF9B000000FFFF         ; 08 64-bit code
  dq 0x00CF93000000FFFF         ; 10 data
  dq 0x00CF9B000000FFFF         ; 18 32-bit code
  dq 0x00CFFB000000FFFF         ; 20 32-bit code, user
  dq 0x00CFF3000000FFFF         ; 28 data, user
  dq 0x00AFFB000000FFFF         ; 30 64-bit code, user
tss_descriptor:
  dq 0x0000890000000067         ; 38 TSS
  dq 0
probe_gdt_end:
probe_gdt_pointer:
  dw probe_gdt_end - probe_gdt - 1
  dq probe_gdt

align 8
tss:
  dd 0
  dq EXCEPTION_STACK, 0, 0      ; RSP0 to RSP2
  dq 0
  dq EXCEPTION_STACK            ; IST1
  times 6 dq 0
  dd 0
  dw 0, 104
current:
  dd 0

align 16
image_end:
