onSubmit("search", async ({ q }) => {
  const { items } = await api("GET", `/users?${new URLSearchParams({ q, limit: 20 })}`);
  const found = items.filter((user) => user.id !== session.user.id);
  element("found").replaceChildren(...found.map(foundItem));
  element("found-note").textContent = found.length > 0 ? "Users found:" : "No other user has such a name.";
  element("found-note").hidden = false;
  element("found").querySelector("button")?.focus();
});

function foundItem(user) {
  const button = make("button", "", make("span", "name", user.display_name), make("span", "preview", `@${user.username}`));
  button.type = "button";
  button.addEventListener("click", () => openWith(user).catch((refusal) => showProblem(refusal.message)));
  return make("li", "", button);
}

// Opens the direct chat with a user. There is one for each pair of users, however often it is opened.
async function openWith(user) {
  const chat = addChat(await api("POST", "/chats", { user_id: user.id }));
  element("found").replaceChildren();
  element("found-note").hidden = true;
  element("search").reset();
  join(chat);
  showChat(chat);
}
