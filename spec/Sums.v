(** Sums over lists of indices, and what pairs of numbers say of their sum. Knows nothing of nodes. *)

From Coq Require Import List ZArith Lia QArith Lqa.
Open Scope nat_scope.
Import ListNotations.

(** ** Natural numbers *)

Fixpoint sum (f : nat -> nat) (l : list nat) : nat :=
  match l with
  | [] => 0
  | i :: l' => f i + sum f l'
  end.

Lemma sum_ext : forall (f g : nat -> nat) l, (forall i, In i l -> f i = g i) -> sum f l = sum g l.
Proof.
  intros f g l; induction l as [| i l IH]; cbn; intros H; [reflexivity |].
  rewrite (H i) by (left; reflexivity). rewrite IH; [reflexivity | intros; apply H; right; assumption].
Qed.

Lemma sum_le : forall (f g : nat -> nat) l, (forall i, In i l -> f i <= g i) -> sum f l <= sum g l.
Proof.
  intros f g l; induction l as [| i l IH]; cbn; intros H; [lia |].
  pose proof (H i (or_introl eq_refl)).
  assert (sum f l <= sum g l) by (apply IH; intros; apply H; right; assumption). lia.
Qed.

(** One index of a list without repetition gets another value. *)
Lemma sum_change :
  forall (f g : nat -> nat) l c, NoDup l -> In c l -> (forall i, i <> c -> f i = g i) -> sum f l + g c = sum g l + f c.
Proof.
  intros f g l c Hnd; induction Hnd as [| i l Hni Hnd IH]; cbn; intros Hin Heq; [contradiction |].
  destruct Hin as [-> | Hin].
  - rewrite (sum_ext f g l); [lia |]. intros j Hj. apply Heq. intros ->. contradiction.
  - rewrite (Heq i) by (intros ->; contradiction). specialize (IH Hin Heq). lia.
Qed.

Lemma sum_member : forall f l c, In c l -> f c <= sum f l.
Proof.
  intros f l c; induction l as [| i l IH]; cbn; intros H; [contradiction |].
  destruct H as [-> | H]; [lia | specialize (IH H); lia].
Qed.

(** ** Integers *)

Open Scope Z_scope.

Fixpoint zsum {A} (f : A -> Z) (l : list A) : Z :=
  match l with
  | [] => 0
  | i :: l' => f i + zsum f l'
  end.

Lemma zsum_ext : forall A (f g : A -> Z) l, (forall i, In i l -> f i = g i) -> zsum f l = zsum g l.
Proof.
  intros A f g l; induction l as [| i l IH]; cbn; intros H; [reflexivity |].
  rewrite (H i) by (left; reflexivity). rewrite IH; [reflexivity | intros; apply H; right; assumption].
Qed.

Lemma zsum_le : forall A (f g : A -> Z) l, (forall i, In i l -> f i <= g i) -> zsum f l <= zsum g l.
Proof.
  intros A f g l; induction l as [| i l IH]; cbn; intros H; [lia |].
  pose proof (H i (or_introl eq_refl)).
  assert (zsum f l <= zsum g l) by (apply IH; intros; apply H; right; assumption). lia.
Qed.

Lemma zsum_add : forall A (f g : A -> Z) l, zsum (fun i => f i + g i) l = zsum f l + zsum g l.
Proof. intros A f g l; induction l as [| i l IH]; cbn; [reflexivity | rewrite IH; lia]. Qed.

Lemma zsum_scale : forall A (f : A -> Z) a l, zsum (fun i => a * f i) l = a * zsum f l.
Proof. intros A f a l; induction l as [| i l IH]; cbn; [lia | rewrite IH; lia]. Qed.

Lemma zsum_const : forall A (l : list A) a, zsum (fun _ => a) l = Z.of_nat (length l) * a.
Proof. intros A l a; induction l as [| i l IH]; cbn [zsum length]; [lia | rewrite IH; lia]. Qed.

Lemma zsum_swap :
  forall A B (f : A -> B -> Z) l m,
  zsum (fun i => zsum (fun j => f i j) m) l = zsum (fun j => zsum (fun i => f i j) l) m.
Proof.
  intros A B f l m; induction l as [| i l IH]; cbn.
  - induction m; cbn; [reflexivity | lia].
  - rewrite IH. rewrite <- zsum_add. reflexivity.
Qed.

Lemma zsum_nonneg : forall A (f : A -> Z) l, (forall i, In i l -> 0 <= f i) -> 0 <= zsum f l.
Proof.
  intros A f l H. assert (zsum (fun _ => 0) l <= zsum f l) by (apply zsum_le; assumption).
  rewrite zsum_const in H0. lia.
Qed.

(** If any two have a positive sum, then all together have, once there are two. *)
Lemma pairs_positive :
  forall (w : nat -> Z) l, NoDup l -> (2 <= length l)%nat ->
  (forall i j, In i l -> In j l -> i <> j -> 0 < w i + w j) -> 0 < zsum w l.
Proof.
  intros w l Hnd; induction Hnd as [| a l Hna Hnd IH]; cbn [length zsum]; intros Hlen Hp; [lia |].
  destruct (Z_lt_le_dec 0 (w a)) as [Ha | Ha].
  - destruct l as [| b [| c l]]; cbn [length] in *; [lia | cbn; specialize (Hp a b); cbn in Hp |].
    + assert (a <> b) by (intros ->; apply Hna; left; reflexivity). lia.
    + assert (0 < zsum w (b :: c :: l)); [| lia].
      apply IH; [cbn; lia |]. intros; apply Hp; cbn; try (right; assumption); assumption.
  - assert (Hpos : forall j, In j l -> - w a < w j).
    { intros j Hj. assert (a <> j) by (intros ->; contradiction).
      specialize (Hp a j (or_introl eq_refl) (or_intror Hj) H). lia. }
    destruct l as [| b l]; cbn [length] in *; [lia |]. cbn [zsum].
    assert (0 <= zsum w l) by (apply zsum_nonneg; intros j Hj; specialize (Hpos j (or_intror Hj)); lia).
    specialize (Hpos b (or_introl eq_refl)). lia.
Qed.

Close Scope Z_scope.

(** ** Rationals *)

Open Scope Q_scope.

Fixpoint qsum (f : nat -> Q) (l : list nat) : Q :=
  match l with
  | [] => 0
  | i :: l' => f i + qsum f l'
  end.

Lemma qsum_le : forall f g l, (forall i, In i l -> f i <= g i) -> qsum f l <= qsum g l.
Proof.
  intros f g l; induction l as [| i l IH]; cbn; intros H; [lra |].
  pose proof (H i (or_introl eq_refl)).
  assert (qsum f l <= qsum g l) by (apply IH; intros; apply H; right; assumption). lra.
Qed.

Lemma qsum_nonneg : forall f l, (forall i, In i l -> 0 <= f i) -> 0 <= qsum f l.
Proof.
  intros f l; induction l as [| i l IH]; cbn; intros H; [lra |].
  pose proof (H i (or_introl eq_refl)).
  assert (0 <= qsum f l) by (apply IH; intros; apply H; right; assumption). lra.
Qed.

Lemma qsum_member : forall f l c, (forall i, In i l -> 0 <= f i) -> In c l -> f c <= qsum f l.
Proof.
  intros f l c; induction l as [| i l IH]; cbn; intros Hn Hin; [contradiction |].
  destruct Hin as [-> | Hin].
  - assert (0 <= qsum f l) by (apply qsum_nonneg; intros; apply Hn; right; assumption). lra.
  - pose proof (Hn i (or_introl eq_refl)).
    assert (f c <= qsum f l) by (apply IH; [intros; apply Hn; right; assumption | assumption]). lra.
Qed.

Lemma qsum_add : forall f g l, qsum (fun i => f i + g i) l == qsum f l + qsum g l.
Proof. intros f g l; induction l as [| i l IH]; cbn; [reflexivity | rewrite IH; ring]. Qed.

Lemma qsum_shift : forall f a l, qsum (fun i => f i - a) l == qsum f l - inject_Z (Z.of_nat (length l)) * a.
Proof.
  intros f a l; induction l as [| i l IH]; cbn [qsum length].
  - cbn. ring.
  - rewrite IH, Nat2Z.inj_succ. unfold Z.succ. rewrite inject_Z_plus. ring.
Qed.

Lemma qpairs_positive :
  forall (w : nat -> Q) l, NoDup l -> (2 <= length l)%nat ->
  (forall i j, In i l -> In j l -> i <> j -> 0 < w i + w j) -> 0 < qsum w l.
Proof.
  intros w l Hnd; induction Hnd as [| a l Hna Hnd IH]; cbn [length qsum]; intros Hlen Hp; [lia |].
  destruct (Qlt_le_dec 0 (w a)) as [Ha | Ha].
  - destruct l as [| b [| c l]]; cbn [length] in *; [lia | cbn; specialize (Hp a b); cbn in Hp |].
    + assert (a <> b) by (intros ->; apply Hna; left; reflexivity).
      specialize (Hp (or_introl eq_refl) (or_intror (or_introl eq_refl)) H). lra.
    + assert (0 < qsum w (b :: c :: l)); [| lra].
      apply IH; [cbn; lia |]. intros; apply Hp; cbn; try (right; assumption); assumption.
  - assert (Hpos : forall j, In j l -> - w a < w j).
    { intros j Hj. assert (a <> j) by (intros ->; contradiction).
      specialize (Hp a j (or_introl eq_refl) (or_intror Hj) H). lra. }
    destruct l as [| b l]; cbn [length] in *; [lia |]. cbn [qsum].
    assert (0 <= qsum w l) by (apply qsum_nonneg; intros j Hj; specialize (Hpos j (or_intror Hj)); lra).
    specialize (Hpos b (or_introl eq_refl)). lra.
Qed.

Close Scope Q_scope.
