(** * G8 cost of a lookup

    Comparisons are counted, not time. Binary search in a sorted table of n keys makes at most log2 n + 1; a B-tree, as of ordered maps, at
    most a constant per level, and has few levels; the keys with a common prefix stand together, so a query for a prefix
    is one search and one step per answer. Hashing gives O(1) only as an expected value over the choice of the key of
    the hash, and in the worst case it is O(n): that is no statement about every table and is not proved here. *)

From Coq Require Import List Arith ZArith Bool Lia.
Import ListNotations.
Open Scope nat_scope.

(** ** Binary search *)

Section Search.
Variable key : nat -> Z.

(** Where the key is in [from, from + n), if it is there, and how many keys were compared. *)
Fixpoint search (fuel : nat) (x : Z) (from n : nat) : option nat * nat :=
  match fuel, n with
  | O, _ | _, O => (None, 0)
  | S fuel', _ =>
      let middle := from + n / 2 in
      match Z.compare x (key middle) with
      | Eq => (Some middle, 1)
      | Lt => let (found, steps) := search fuel' x from (n / 2) in (found, S steps)
      | Gt => let (found, steps) := search fuel' x (S middle) (n - n / 2 - 1) in (found, S steps)
      end
  end.

Lemma log2_half : forall n, 2 <= n -> S (Nat.log2 (n / 2)) <= Nat.log2 n.
Proof.
  intros n H. assert (0 < n / 2) by (apply Nat.div_str_pos; lia).
  rewrite <- Nat.log2_double by assumption. apply Nat.log2_le_mono. apply Nat.mul_div_le. lia.
Qed.

Theorem search_steps :
  forall fuel x from n, 0 < n -> snd (search fuel x from n) <= Nat.log2 n + 1.
Proof.
  induction fuel as [| fuel IH]; intros x from n Hn; [cbn; lia |].
  destruct n as [| n]; [lia |]. set (m := S n) in *.
  change (search (S fuel) x from m) with
    (match Z.compare x (key (from + m / 2)) with
     | Eq => (Some (from + m / 2), 1)
     | Lt => let (found, steps) := search fuel x from (m / 2) in (found, S steps)
     | Gt => let (found, steps) := search fuel x (S (from + m / 2)) (m - m / 2 - 1) in (found, S steps)
     end).
  assert (Hpart : forall f p, p <= m / 2 -> snd (search fuel x f p) <= Nat.log2 m).
  { intros f p Hp. destruct p as [| p]; [destruct fuel; cbn; lia |].
    assert (H2 : 2 <= m).
    { destruct (le_lt_dec 2 m) as [|Hlt]; [assumption |]. assert (m = 1) as E by lia. rewrite E in Hp. cbn in Hp. lia. }
    specialize (IH x f (S p) ltac:(lia)). pose proof (log2_half m H2).
    assert (Nat.log2 (S p) <= Nat.log2 (m / 2)) by (apply Nat.log2_le_mono; lia). lia. }
  destruct (Z.compare x (key (from + m / 2))); [cbn; lia | |].
  - specialize (Hpart from (m / 2) ltac:(lia)). destruct (search fuel x from (m / 2)). cbn in *. lia.
  - assert (Hrest : m - m / 2 - 1 <= m / 2).
    { pose proof (Nat.div_mod m 2 ltac:(lia)). pose proof (Nat.mod_upper_bound m 2 ltac:(lia)). lia. }
    specialize (Hpart (S (from + m / 2)) _ Hrest). destruct (search fuel x _ _). cbn in *. lia.
Qed.

Hypothesis sorted : forall i j, i < j -> (key i < key j)%Z.

(** What is found is it, and what is there is found. *)
Theorem search_finds :
  forall fuel x from n, n <= fuel ->
  match fst (search fuel x from n) with
  | Some i => from <= i < from + n /\ key i = x
  | None => forall i, from <= i < from + n -> key i <> x
  end.
Proof.
  induction fuel as [| fuel IH]; intros x from n Hf; [cbn; intros; lia |].
  destruct n as [| n]; [cbn; intros; lia |]. set (m := S n) in *.
  change (search (S fuel) x from m) with
    (match Z.compare x (key (from + m / 2)) with
     | Eq => (Some (from + m / 2), 1)
     | Lt => let (found, steps) := search fuel x from (m / 2) in (found, S steps)
     | Gt => let (found, steps) := search fuel x (S (from + m / 2)) (m - m / 2 - 1) in (found, S steps)
     end).
  assert (Hhalf : m / 2 < m) by (apply Nat.div_lt; lia).
  destruct (Z.compare_spec x (key (from + m / 2))) as [E | L | G]; [cbn [fst]; split; [lia | auto] | |].
  - specialize (IH x from (m / 2) ltac:(lia)). destruct (search fuel x from (m / 2)) as [[i |] steps]; cbn [fst] in *; [lia |].
    intros i Hi. destruct (le_lt_dec (from + m / 2) i) as [Hge | Hlt]; [| apply IH; lia].
    destruct (Nat.eq_dec i (from + m / 2)) as [-> | Hne]; [lia |].
    specialize (sorted (from + m / 2) i ltac:(lia)). lia.
  - specialize (IH x (S (from + m / 2)) (m - m / 2 - 1) ltac:(lia)).
    destruct (search fuel x _ _) as [[i |] steps]; cbn [fst] in *; [lia |].
    intros i Hi. destruct (le_lt_dec i (from + m / 2)) as [Hle | Hgt]; [| apply IH; lia].
    destruct (Nat.eq_dec i (from + m / 2)) as [-> | Hne]; [lia |].
    specialize (sorted i (from + m / 2) ltac:(lia)). lia.
Qed.
End Search.

(** ** Ordered maps: B-trees *)

(** Keys with the subtrees before them, and the last subtree. *)
Inductive tree := Leaf (keys : list Z) | Inner (children : list (tree * Z)) (last : tree).

Fixpoint in_keys (x : Z) (keys : list Z) : bool * nat :=
  match keys with
  | [] => (false, 0)
  | k :: rest =>
      match Z.compare x k with
      | Eq => (true, 1)
      | Lt => (false, 1)
      | Gt => let (found, steps) := in_keys x rest in (found, S steps)
      end
  end.

(** Keys are compared from the left until one is not smaller; then one goes down. *)
Fixpoint find (x : Z) (t : tree) : bool * nat :=
  match t with
  | Leaf keys => in_keys x keys
  | Inner children last =>
      (fix among (l : list (tree * Z)) : bool * nat :=
         match l with
         | [] => find x last
         | (child, k) :: rest =>
             match Z.compare x k with
             | Eq => (true, 1)
             | Lt => let (found, steps) := find x child in (found, S steps)
             | Gt => let (found, steps) := among rest in (found, S steps)
             end
         end) children
  end.

Fixpoint size (t : tree) : nat :=
  match t with
  | Leaf keys => length keys
  | Inner children last =>
      (fix all (l : list (tree * Z)) : nat :=
         match l with
         | [] => size last
         | (child, _) :: rest => S (size child + all rest)
         end) children
  end.

(** All leaves at one depth; every node has at most 2b - 1 keys and, but for the root, at least b - 1. *)
Fixpoint balanced (b : nat) (least : nat) (height : nat) (t : tree) : Prop :=
  match height, t with
  | O, Leaf keys => least <= length keys <= 2 * b - 1
  | S h, Inner children last =>
      least <= length children <= 2 * b - 1
      /\ (forall c, In c children -> balanced b (b - 1) h (fst c)) /\ balanced b (b - 1) h last
  | _, _ => False
  end.

Lemma in_keys_steps : forall x keys, snd (in_keys x keys) <= length keys.
Proof.
  intros x; induction keys as [| k rest IH]; cbn; [lia |].
  destruct (Z.compare x k); cbn; [lia | lia |]. destruct (in_keys x rest). cbn in *. lia.
Qed.

Theorem find_steps :
  forall b height least x t, balanced b least height t -> snd (find x t) <= (2 * b - 1) * (height + 1).
Proof.
  intros b; induction height as [| h IH]; intros least x t Hb; destruct t as [keys | children last]; cbn in Hb; try contradiction.
  - cbn. pose proof (in_keys_steps x keys). lia.
  - destruct Hb as ([_ Hlen] & Hc & Hl). cbn [find].
    set (deep := (2 * b - 1) * (h + 1)).
    assert (Hall : forall l, (forall c, In c l -> In c children) ->
      snd ((fix among (l : list (tree * Z)) : bool * nat :=
         match l with
         | [] => find x last
         | (child, k) :: rest =>
             match Z.compare x k with
             | Eq => (true, 1)
             | Lt => let (found, steps) := find x child in (found, S steps)
             | Gt => let (found, steps) := among rest in (found, S steps)
             end
         end) l) <= length l + deep).
    { induction l as [| [c k] l IHl]; intros Hin; [apply (IH _ x last Hl) |].
      specialize (IHl (fun c' H => Hin c' (or_intror H))). cbn [length].
      destruct (Z.compare x k); [cbn; lia | |].
      - pose proof (IH _ x c (Hc (c, k) (Hin _ (or_introl eq_refl)))) as H. fold deep in H.
        destruct (find x c). cbn in *. lia.
      - match goal with |- snd (let (_, _) := ?e in _) <= _ => destruct e end. cbn in *. lia. }
    specialize (Hall children (fun c H => H)). unfold deep in Hall. nia.
Qed.

Lemma size_inner :
  forall children last m, (forall c, In c children -> m <= size (fst c)) -> m <= size last ->
  length children * (m + 1) + m <= size (Inner children last).
Proof.
  intros children last m; induction children as [| [c k] rest IH]; intros Hc Hl; [cbn; lia |].
  specialize (IH (fun c' H => Hc c' (or_intror H)) Hl). pose proof (Hc (c, k) (or_introl eq_refl)) as H.
  cbn [size length fst] in *. lia.
Qed.

Lemma inner_size : forall b h t, 1 <= b -> balanced b (b - 1) h t -> b ^ (h + 1) <= size t + 1.
Proof.
  intros b; induction h as [| h IH]; intros t H1 Hb; destruct t as [keys | children last]; cbn in Hb; try contradiction.
  - cbn. lia.
  - destruct Hb as ([Hlen _] & Hc & Hl).
    pose proof (size_inner children last (b ^ (h + 1) - 1)) as H.
    assert (Hpos : 1 <= b ^ (h + 1)) by (apply Nat.neq_0_lt_0, Nat.pow_nonzero; lia).
    assert (H' : length children * (b ^ (h + 1) - 1 + 1) + (b ^ (h + 1) - 1) <= size (Inner children last)).
    { apply H; [intros c Hin; specialize (IH (fst c) H1 (Hc c Hin)) | specialize (IH last H1 Hl)]; lia. }
    replace (S h + 1) with (S (h + 1)) by lia. cbn [Nat.pow].
    assert ((b - 1) * b ^ (h + 1) <= length children * b ^ (h + 1)) by (apply Nat.mul_le_mono_r; assumption).
    replace (b ^ (h + 1) - 1 + 1) with (b ^ (h + 1)) in H' by lia.
    assert ((b - 1) * b ^ (h + 1) + b ^ (h + 1) = b * b ^ (h + 1)) by nia. lia.
Qed.

(** A tree with a root of at least one key has few levels. *)
Theorem few_levels : forall b h t, 1 <= b -> balanced b 1 h t -> 2 * b ^ h <= size t + 1.
Proof.
  intros b h t H1 Hb. destruct h as [| h]; destruct t as [keys | children last]; cbn in Hb; try contradiction.
  - cbn. lia.
  - destruct Hb as ([Hlen _] & Hc & Hl).
    assert (Hpos : 1 <= b ^ (h + 1)) by (apply Nat.neq_0_lt_0, Nat.pow_nonzero; lia).
    pose proof (size_inner children last (b ^ (h + 1) - 1)) as H.
    assert (H' : length children * (b ^ (h + 1) - 1 + 1) + (b ^ (h + 1) - 1) <= size (Inner children last)).
    { apply H; [intros c Hin; pose proof (inner_size b h (fst c) H1 (Hc c Hin))
               | pose proof (inner_size b h last H1 Hl)]; lia. }
    replace (b ^ (h + 1) - 1 + 1) with (b ^ (h + 1)) in H' by lia.
    replace (S h) with (h + 1) by lia. nia.
Qed.

(** With b = 6, as in the standard library of Rust: at most 11 comparisons per level, and half as many levels as log2. *)
Theorem ordered_map_steps :
  forall h x t, balanced 6 1 h t -> snd (find x t) <= 11 * (Nat.log2 (size t + 1) / 2 + 1).
Proof.
  intros h x t Hb. pose proof (find_steps 6 h 1 x t Hb) as Hs. pose proof (few_levels 6 h t ltac:(lia) Hb) as Hl.
  assert (Hh : h <= Nat.log2 (size t + 1) / 2).
  { apply Nat.div_le_lower_bound; [lia |]. apply Nat.log2_le_pow2; [lia |].
    rewrite Nat.pow_mul_r. assert (2 ^ 2 = 4) as -> by reflexivity.
    assert (4 ^ h <= 6 ^ h) by (apply Nat.pow_le_mono_l; lia). lia. }
  replace (2 * 6 - 1) with 11 in Hs by reflexivity. nia.
Qed.

(** ** Prefixes *)

Fixpoint prefix (p a : list nat) : Prop :=
  match p, a with
  | [], _ => True
  | x :: p', y :: a' => x = y /\ prefix p' a'
  | _ :: _, [] => False
  end.

(** The order of strings. *)
Fixpoint at_most (a b : list nat) : Prop :=
  match a, b with
  | [], _ => True
  | _ :: _, [] => False
  | x :: a', y :: b' => x < y \/ (x = y /\ at_most a' b')
  end.

(** Keys with a common prefix stand together: between two of them there are no others. *)
Theorem prefixes_stand_together :
  forall p a b c, prefix p a -> prefix p c -> at_most a b -> at_most b c -> prefix p b.
Proof.
  induction p as [| x p IH]; intros a b c Ha Hc Hab Hbc; [exact I |].
  destruct a as [| y a]; [contradiction |]. destruct c as [| z c]; [contradiction |].
  destruct b as [| w b]; [contradiction |]. cbn in *.
  destruct Ha as [<- Ha], Hc as [<- Hc].
  destruct Hab as [Hlt | [<- Hab]]; destruct Hbc as [Hlt' | [E Hbc]]; try lia.
  split; [reflexivity |]. apply (IH a b c); assumption.
Qed.

(** And the first of them is the first key that is not below the prefix itself. *)
Theorem a_prefix_begins_them : forall p a, prefix p a -> at_most p a.
Proof.
  induction p as [| x p IH]; intros a H; [exact I |]. destruct a as [| y a]; [contradiction |].
  destruct H as [<- H]. right. split; [reflexivity | apply IH; assumption].
Qed.

(** From there one goes on until a key without the prefix: one step more than there are answers. *)
Fixpoint walk (has : nat -> bool) (fuel from : nat) : list nat * nat :=
  match fuel with
  | O => ([], 0)
  | S fuel' =>
      if has from then let (found, steps) := walk has fuel' (S from) in (from :: found, S steps) else ([], 1)
  end.

Theorem walk_steps : forall has fuel from, snd (walk has fuel from) <= length (fst (walk has fuel from)) + 1.
Proof.
  intros has; induction fuel as [| fuel IH]; intros from; cbn; [lia |].
  destruct (has from); [| cbn; lia]. specialize (IH (S from)). destruct (walk has fuel (S from)). cbn in *. lia.
Qed.
