function showForm(name, problem = "") {
  element("app").hidden = true;
  element("logout").hidden = true;
  element("account").textContent = "";
  element("enter").hidden = false;
  for (const form of element("enter").children) form.hidden = form.id !== name;
  showProblem(problem);
  element(name).elements[0].focus();
}

for (const link of document.querySelectorAll("[data-show]")) {
  link.addEventListener("click", () => showForm(link.dataset.show));
}

// Submits a form once at a time; a refusal names the field at fault.
function onSubmit(id, work) {
  const form = element(id);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type=button])");
    if (button.disabled) return;
    button.disabled = true;
    showProblem("");
    try {
      await work(Object.fromEntries(new FormData(form)));
    } catch (refusal) {
      showProblem(refusal.message);
      form.elements[refusal.field]?.focus();
    } finally {
      button.disabled = false;
    }
  });
}

onSubmit("login", async ({ login, password }) => {
  const name = login.includes("@") ? { email: login } : { username: login };
  begin(await request("POST", "/auth/login", { ...name, password }));
});

onSubmit("signup", async ({ display_name, ...account }) => {
  const name = display_name.trim() ? { display_name } : {};
  begin(await request("POST", "/auth/signup", { ...account, ...name }));
});

function begin(tokens) {
  for (const form of element("enter").children) form.reset();
  enter(store(tokens));
}

element("logout").addEventListener("click", async () => {
  const { id } = session;
  // The node ends this tab's connection before its answer arrives.
  socket.disconnect();
  try {
    await api("POST", "/auth/logout", {});
  } catch (refusal) {
    if (refusal.status !== 401) {
      showProblem(`Not logged out: ${refusal.message}`);
      socket.connect();
      return;
    }
  }
  endSession(id, "");
});
